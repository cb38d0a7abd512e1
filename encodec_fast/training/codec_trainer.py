"""Trains a codec: the paper's recipe (3.4, 4.4; spec 6, 7) or what the settings make of it.

    encodec-fast train nano_24khz audio=AUDIO out=RUN

A step draws one bandwidth, updates its discriminator on the decoded batch now and then, then the
codec on the balanced gradients of its losses. Everything random is a function of the seed and the
step, so a run that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from encodec_fast.models.collective import from_rank_zero, rank, sum_ranks, world
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.training.adversary import Adversary
from encodec_fast.training.averaging import AveragedWeights
from encodec_fast.training.balancer import Balancer
from encodec_fast.training.checkpoint import LAST
from encodec_fast.training.codec_settings import CodecSettings
from encodec_fast.training.data import Batch, DataSettings, open_batches, prepare
from encodec_fast.training.distillation import Distillation
from encodec_fast.training.generator import Generator, start_from
from encodec_fast.training.losses import mel_loss, noise_ratio
from encodec_fast.training.monitor import Monitor
from encodec_fast.training.non_finite import check_finite, first_bad
from encodec_fast.training.progress_line import ProgressLine
from encodec_fast.training.run import Run
from encodec_fast.training.validation import Validation

_STREAMS = {"bandwidth": 1, "adversary": 2}  # of random numbers, beside the data's


class StepReport(NamedTuple):
    """What one step found: losses by name, and the shares of the balanced gradient."""

    losses: dict[str, float]
    shares: dict[str, float]


class CodecTrainer(Run):
    """One training run: model, averaged weights, discriminators, optimisers, data and log."""

    def __init__(self, settings: CodecSettings) -> None:
        self.settings = settings
        self.config = settings.config
        super().__init__(settings)
        torch.manual_seed(settings.seed)
        self.model = EncodecModel(self.config)
        self._set_codebooks()
        if settings.start_from is not None and not self.resuming():
            self._start_from(settings.start_from)
        self.model.to(self.device).train()
        distillation = None
        if settings.distillation.model is not None:
            distillation = Distillation(settings.distillation, self.config)
        self.generator = Generator(self.model, distillation, settings.quantizer.reference).to(
            self.device
        )
        self._forward: nn.Module = self._parallel(self.generator)
        betas = (settings.optimizer.betas[0], settings.optimizer.betas[1])
        parameters = [p for p in self.generator.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=settings.optimizer.lr, betas=betas)
        self.average = AveragedWeights(self.model, settings.average_decay)
        weights = {name: weight for name, weight in settings.losses.weights.items() if weight}
        self.balancer = Balancer(weights, settings.losses.balancer_decay)
        self.mel = mel_loss(
            settings.losses.mel, self.config.sample_rate, settings.losses.mel_floor
        ).to(self.device)
        self.adversary: Adversary | None = None
        if "adversarial" in weights or "features" in weights:
            self.adversary = Adversary(
                settings.adversary, settings.losses, self.config, betas, self.device
            )
        networks = () if self.adversary is None else (self.adversary.networks,)
        self.settle_precision(self.generator, *networks)
        self.best = float("inf")
        if self.resuming():
            self.load()
        first = from_rank_zero(torch.tensor(self.step, device=self.device))
        if first != self.step:
            raise ValueError(f"out: process {rank()} is at step {self.step}, the first at {first}")
        data = self._data()
        self.note_unfiltered((*data[0].train, *data[0].valid))
        if rank() == 0:
            prepare(*data)
        from_rank_zero(torch.zeros(1, device=self.device))  # the others wait for the cache
        self.validation = Validation(settings, self.config)

    def _start_from(self, source: str) -> None:
        rate = start_from(self.model, source)
        if rate != self.config.sample_rate:
            self.note(
                f"start_from: {source} was trained at {rate} Hz, this run is at "
                f"{self.config.sample_rate} Hz"
            )
        steps = self.settings.quantizer.plain_steps
        if steps and self.coding():
            self.note(f"start_from: {steps} steps without {source}'s codebooks (plain_steps)")

    def coding(self) -> bool:
        """Whether the codebooks have started: before that the model codes nothing."""
        return bool(self.model.quantizer.codebook(0).inited.item())

    def _set_codebooks(self) -> None:
        for index in range(self.config.n_codebooks):
            codebook = self.model.quantizer.codebook(index)
            codebook.decay = self.settings.quantizer.decay
            codebook.kmeans_iterations = self.settings.quantizer.kmeans_iterations
            codebook.reference = self.settings.quantizer.reference

    def _parallel(self, module: nn.Module) -> nn.Module:
        if world() == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        # The codebooks, its buffers, are equal on all ranks as they are.
        return DistributedDataParallel(
            module, device_ids=ids, broadcast_buffers=False, find_unused_parameters=True
        )

    def _state(self) -> dict[str, object]:
        """All of the run's state, for last.pt."""
        distillation = self.generator.distillation
        return {
            "architecture": self._architecture(),
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "average": self.average.state,
            "distillation": None if distillation is None else distillation.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "adversary": None if self.adversary is None else self.adversary.state_dict(),
            "balancer": self.balancer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
        }

    def load(self) -> None:
        """Take up the run from its last checkpoint. Raises ValueError for another model's."""
        saved = self.store.load(LAST, self._architecture(), str(self.device))
        self.model.load_state_dict(saved["model"])
        self.average.state = saved["average"]
        for name, part in (
            ("adversary", self.adversary),
            ("distillation", self.generator.distillation),
        ):
            if part is not None:
                part.load_state_dict(saved[name])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.balancer.load_state_dict(saved["balancer"])
        self.step, self.elapsed, self.best = saved["step"], saved["elapsed"], saved["best"]

    def _architecture(self) -> dict[str, object]:
        """What a checkpoint must have to be this run's."""
        adversary, teacher = None, None
        if self.adversary is not None:
            chosen = self.settings.adversary
            adversary = {"preset": chosen.preset, "per_bandwidth": chosen.per_bandwidth}
        if self.generator.distillation is not None:
            teacher = self.generator.distillation.projection.out_features
        return {**asdict(self.config), "adversary": adversary, "teacher": teacher}

    def _batches(self, start: int, seed: int) -> Iterator[Batch]:
        batch = self.settings.batch
        return open_batches(*self._data(), batch, seed, start, rank(), world(), self.note)

    def _data(self) -> tuple[DataSettings, int, int, int]:
        """Which crops: the data's settings, sample rate, channels and samples."""
        settings, config = self.settings, self.config
        return settings.placed_data, config.sample_rate, config.channels, settings.samples

    def averaged_model(self) -> EncodecModel:
        """The model with the averaged weights, on the CPU, in eval mode."""
        return self.average.model(self.model).cpu()

    def _take(self, batches: Iterator[Batch]) -> Batch:
        batch = next(batches)
        self.note_skipped(batch.skipped)
        return batch

    def _random(self, stream: str) -> random.Random:
        """The numbers of this step, the same on every rank."""
        return random.Random(f"{self.settings.seed} {self.step} {_STREAMS[stream]}")

    def _draw_codebooks(self) -> int | None:
        """How many codebooks code this step's batch: one draw for the batch (paper 3.2)."""
        settings = self.settings.quantizer
        if self.step < settings.plain_steps:
            return None
        draw = self._random("bandwidth")
        if settings.draw == "any":
            return draw.randint(1, self.config.n_codebooks)
        bandwidths = self.config.bandwidths
        weights = [settings.weights.get(f"{kbps:g}", 0.0) for kbps in bandwidths]
        chosen = draw.choices(bandwidths, weights if settings.weights else None)[0]
        return self.config.n_q(chosen)

    def _adversary_now(self) -> Adversary | None:
        started = self.progress() >= self.settings.adversary.start
        return (
            self.adversary if started and self.step >= self.settings.quantizer.plain_steps else None
        )

    @torch.no_grad()
    def _initialise_codebooks(self) -> None:
        """k-means on the latents of some batches of their own: one may have fewer frames than
        codes, and the training batches must not depend on it."""
        batches = self._batches(0, self.settings.seed + 1)
        count = self.settings.quantizer.initial_batches
        with self.autocast():
            latents = torch.cat(
                [
                    self.model.encoder(self._take(batches).waves.to(self.device)).float()
                    for _ in range(count)
                ]
            )
        residual = latents.transpose(1, 2).reshape(-1, latents.shape[1])
        for index in range(self.config.n_codebooks):
            codebook = self.model.quantizer.codebook(index)
            codebook.initialise(residual)
            residual = residual - F.embedding(codebook.quantize(residual), codebook.embed)
        self.average.restart("quantizer.", self.model)

    def _waveform_losses(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The losses in the balancer that need no discriminator."""
        known: dict[str, Callable[[], Tensor]] = {
            "l1": lambda: F.l1_loss(y, x),
            "snr": lambda: noise_ratio(x, y),
            "mel": lambda: self.mel(x, y),
        }
        return {name: known[name]() for name in self.balancer.weights if name in known}

    def train_step(self, batch: Batch) -> StepReport:
        """One update on `batch`. Raises NonFiniteLoss, having saved the batch, when a loss or the
        gradient is not finite; the encoder and the decoder are then as they were."""
        torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
        if self.step >= self.settings.quantizer.plain_steps and not self.coding():
            self._initialise_codebooks()
        n_q = self._draw_codebooks()
        x = batch.waves.to(self.device, non_blocking=True)
        with self.autocast():
            decoded = self._forward(x, n_q, batch.kinds)
        losses: dict[str, Tensor] = {}
        y = decoded.waves.detach().requires_grad_()
        adversary = self._adversary_now()
        if adversary is not None and n_q is not None:
            update = self._random("adversary").random()
            crops = self.settings.adversary.crops
            seen = slice(None if crops is None else max(1, crops // world()))
            with self.autocast():
                if update < self.settings.adversary.update_probability:
                    losses["discriminator"] = adversary.learn(n_q, x[seen], y[seen])
                losses |= adversary.judge(n_q, x[seen], y[seen])
        losses |= self._waveform_losses(x, y)
        balanced = {name: losses[name] for name in self.balancer.weights if name in losses}
        # It is that of a sum over the batch, and the processes average: times their number it is
        # that of one process with all of the batch.
        gradient = self.balancer.gradient(balanced, y) * world()
        extra = self.settings.losses.commitment * decoded.commitment
        extra = extra + self.settings.distillation.weight * decoded.distillation
        losses["commitment"] = decoded.commitment.detach()
        if self.generator.distillation is not None:
            losses["distillation"] = decoded.distillation.detach()
        self._check(losses, batch)
        self._update(decoded.waves, gradient, extra, losses, batch)
        values = {name: loss.item() for name, loss in losses.items()}
        return StepReport(values, self.balancer.shares())

    def _update(
        self, y: Tensor, gradient: Tensor, extra: Tensor, losses: dict[str, Tensor], batch: Batch
    ) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        if extra.requires_grad:
            torch.autograd.backward([y, extra], [gradient, torch.ones_like(extra)])
        else:
            torch.autograd.backward([y], [gradient])
        clip = self.settings.optimizer.clip or float("inf")
        losses["gradient"] = nn.utils.clip_grad_norm_(self.generator.parameters(), clip)
        self._check({"gradient": losses["gradient"]}, batch)
        self.optimizer.step()
        self.step += 1
        self.average.update(self.model, self.step)

    def _check(self, values: dict[str, Tensor], batch: Batch) -> None:
        """All processes stop where one has a loss that is no number."""
        bad = torch.tensor(float(first_bad(values) is not None), device=self.device)
        if sum_ranks(bad) > 0:
            name = f"bad_batch{rank()}.pt"
            check_finite(self.step, values, batch.waves, batch.sources, self.store, name)
            raise ValueError(f"step {self.step}: another process has a loss that is no number")

    def _run(self) -> None:
        """One step after the other; the first rank tells about it."""
        batches = self._batches(self.step, self.settings.seed)
        monitor = progress = None
        with contextlib.ExitStack() as stack:
            if rank() == 0:
                monitor = Monitor(self.out, self.config.sample_rate, self.step)
                stack.enter_context(contextlib.closing(monitor))
                progress = stack.enter_context(self.progress_line())
            mark = time.monotonic()
            while self.going():
                batch = self._take(batches)
                report = self.train_step(batch)
                self.spend((now := time.monotonic()) - mark)
                mark = now
                if monitor is not None and progress is not None:
                    self._tell(monitor, progress, report)
                    best = self._validate(monitor, progress)
                    if best or self.step % self.settings.save_steps == 0:
                        self.save(best)

    def _tell(self, monitor: Monitor, progress: ProgressLine, report: StepReport) -> None:
        rate = {"lr": self._learning_rate()}
        progress.update(self.step, self.elapsed / 60, report.losses, report.shares, rate)
        if self.step % self.settings.log_steps == 0:
            shares = {f"share/{name}": share for name, share in report.shares.items()}
            losses = {f"loss/{name}": loss for name, loss in report.losses.items()}
            monitor.scalars(self.step, losses | shares | rate)

    def _validate(self, monitor: Monitor, progress: ProgressLine) -> bool:
        """Where it is due, judges the averaged weights; whether they are the best so far."""
        steps = self.settings.validation.steps
        if not steps or (self.step % steps and self.progress() < 1):
            return False
        figures = self.validation.run(self.average.model(self.model), monitor, self.step)
        shown = " ".join(f"{name} {value:.4f}" for name, value in figures.items())
        progress.note(f"step {self.step} {shown}")
        best = figures["valid/mel"] < self.best
        self.best = min(self.best, figures["valid/mel"])
        return best
