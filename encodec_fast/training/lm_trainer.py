"""Trains a codec's entropy model (docs/models.md): its language model and static tables.

    encodec-fast train lm_nano_24khz audio=AUDIO out=RUN minutes=20

The codes of the training recordings are made first. NAME.entropy.safetensors in the run's folder
has the tables and the averaged weights that did best on the recordings held out of training.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from encodec_fast.codec import Codec
from encodec_fast.models.config import ModelConfig
from encodec_fast.models.entropy_export import export_entropy_model
from encodec_fast.models.lm import LanguageModel
from encodec_fast.program import METADATA_KEY
from encodec_fast.store import ENTROPY_SUFFIX, find_program
from encodec_fast.training.averaging import AveragedWeights
from encodec_fast.training.checkpoint import LAST
from encodec_fast.training.code_data import (
    ENDED,
    CodeSequences,
    TrainingCodes,
    load_codes,
)
from encodec_fast.training.code_length import CodeLength, as_shipped, code_lengths, shifted
from encodec_fast.training.lm_settings import LmSettings
from encodec_fast.training.lm_start import initialise
from encodec_fast.training.monitor import Monitor
from encodec_fast.training.non_finite import check_finite
from encodec_fast.training.progress_line import ProgressLine
from encodec_fast.training.run import Run, processes
from encodec_fast.training.static_tables import balanced, count_codes, table_widths

POSITIONS = 60.0  # seconds: random offsets of the positions go so far


class LmTrainer(Run):
    """One training run: model, moving average of its weights, optimiser, codes and log.

    `config` is what a language model needs to know of its codec (see `language_config`);
    codebooks float32 [K, N, D].
    """

    def __init__(
        self, settings: LmSettings, config: ModelConfig, codebooks: Tensor, codes: TrainingCodes
    ) -> None:
        super().__init__(settings)
        self.settings = settings
        self.config = config
        self.held_out = codes.held_out
        self.note_unfiltered((*settings.placed_data.train, *settings.placed_data.valid))
        self.note_skipped(codes.skipped)
        by_kind: dict[str, list[np.ndarray]] = {}
        for recording in codes.plain:
            by_kind.setdefault(recording.kind, []).extend(recording.segments)
        counts = balanced(
            [
                count_codes(np.concatenate(parts, axis=1), config.codebook_size)
                for parts in by_kind.values()
            ]
        )
        self.widths = table_widths(counts)
        torch.manual_seed(settings.seed)
        model = LanguageModel(config, settings.dim, settings.heads, settings.layers)
        initialise(model, codebooks, counts)
        self.model = model.to(self.device)
        self.settle_precision(self.model)
        self.average = AveragedWeights(self.model, settings.average_decay)
        matrices = [value for value in self.model.parameters() if value.ndim > 1]
        vectors = [value for value in self.model.parameters() if value.ndim == 1]
        optimizer = settings.optimizer
        groups = [
            {"params": matrices, "weight_decay": optimizer.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, optimizer.lr, optimizer.betas)
        self.best = math.inf
        if self.resuming():
            self.load()
        length = round(settings.seconds * config.frame_rate)
        self.sequences = CodeSequences(codes.plain + codes.varied, length, settings.seed)

    def _architecture(self) -> dict[str, object]:
        config, settings = self.config, self.settings
        return {
            "codec": config.name,
            "codebooks": config.n_codebooks,
            "entries": config.codebook_size,
            "frame_rate": config.frame_rate,
            "dim": settings.dim,
            "heads": settings.heads,
            "layers": settings.layers,
        }

    def _state(self) -> dict[str, object]:
        return {
            "architecture": self._architecture(),
            "model": self.model.state_dict(),
            "average": self.average.state,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
        }

    def load(self) -> None:
        """Take up the run from its last checkpoint. Raises ValueError for another model's."""
        saved = self.store.load(LAST, self._architecture(), str(self.device))
        self.model.load_state_dict(saved["model"])
        self.average.state = saved["average"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.elapsed, self.best = saved["step"], saved["elapsed"], saved["best"]

    @property
    def entropy_file(self) -> Path:
        """The entropy model's file, beside which the program belongs."""
        return self.out / f"{self.config.name}{ENTROPY_SUFFIX}"

    def _backward(self, codes: Tensor, offset: int) -> Tensor:
        """Forward and backward of codes int64 [B, n_q, T] at positions from `offset`: the loss in
        bits per code.

        The codebooks' gradients are gathered one by one, so that one codebook's logits are in
        memory at a time.
        """
        model, dropout = self.model, self.settings.dropout
        n_q = codes.shape[1]
        previous = shifted(codes)
        with self.autocast():
            x = torch.stack([model.emb[k](previous[:, k]) for k in range(n_q)]).sum(dim=0)
            hidden, _ = model.transformer(F.dropout(x, dropout), None, offset)
        cut = hidden.detach().requires_grad_()
        total = torch.zeros((), device=self.device)
        for k in range(n_q):
            with self.autocast():
                logits = model.linears[k](F.dropout(cut, dropout))
            loss = F.cross_entropy(
                logits.flatten(0, 1).float(), codes[:, k].flatten(), ignore_index=ENDED
            )
            torch.autograd.backward(loss / n_q)
            total += loss.detach() / n_q
        torch.autograd.backward(hidden, cut.grad)
        return total / math.log(2)

    def _draw(self) -> tuple[int, int]:
        """Codebooks and first position of this step's batch: half of the batches of a codec
        without segments are at the positions of a file's start, half at random ones."""
        random = np.random.default_rng([self.settings.seed, self.step, 1])
        bandwidth = self.config.bandwidths[random.integers(len(self.config.bandwidths))]
        offset = 0
        if self.config.segment is None and random.random() < 0.5:
            offset = int(random.integers(round(POSITIONS * self.config.frame_rate)))
        return self.config.n_q(bandwidth), offset

    def train_step(self) -> float:
        """One update, a pure function of the state, the seed and the step; returns the loss in bits
        per code. Raises NonFiniteLoss, having saved the batch, when the loss or the gradient is not
        finite; the weights are then those of the step before."""
        settings = self.settings
        torch.manual_seed(settings.seed * 1_000_003 + self.step)
        n_q, offset = self._draw()
        codes, sources = self.sequences.batch(settings.batch, self.step)
        codes = codes[:, :n_q].to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._backward(codes, offset)
        clip = settings.optimizer.clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        check_finite(self.step, {"loss": loss, "gradient": norm}, codes, sources, self.store)
        self.optimizer.step()
        self.step += 1
        self.average.update(self.model, self.step)
        return loss.item()

    def check(self) -> tuple[dict[str, CodeLength], bool]:
        """What the held-out recordings cost per bandwidth with the averaged weights as shipped, and
        whether the mean of their bits per code is the lowest so far; then writes the model."""
        model = self.average.model(self.model)
        model.load_state_dict(as_shipped(model.state_dict()))
        figures = code_lengths(model, self.held_out)
        mean = sum(figure.per_code for figure in figures.values()) / len(figures)
        if not mean < self.best:
            return figures, False
        self.best = mean
        widths = self.widths.astype(np.uint32)
        export_entropy_model(self.config.name, model, widths, self.entropy_file, "bfloat16")
        return figures, True

    def _run(self) -> None:
        """One step after the other; checks and saves every so often."""
        with (
            contextlib.closing(Monitor(self.out, self.config.sample_rate, self.step)) as monitor,
            self.progress_line() as line,
        ):
            mark = time.monotonic()
            while self.going():
                loss = self.train_step()
                self.spend((now := time.monotonic()) - mark)
                mark = now
                rate = self._learning_rate()
                line.update(self.step, self.elapsed / 60, {"bits/code": loss}, more={"lr": rate})
                if self.step % self.settings.log_steps == 0:
                    monitor.scalars(self.step, {"loss/bits_per_code": loss, "lr": rate})
                self._look(line, monitor)

    def _look(self, line: ProgressLine, monitor: Monitor) -> None:
        """The check and the checkpoint, where they are due."""
        best = False
        if self.step % self.settings.check_steps == 0 or self.progress() >= 1:
            figures, best = self.check()
            line.note(f"step {self.step} held out: {as_text(figures)}")
            monitor.scalars(self.step, dict(_scalars(figures)))
        if best or self.step % self.settings.save_steps == 0:
            self.save(best)


def as_text(figures: Mapping[str, CodeLength]) -> str:
    """Code lengths per bandwidth on one line."""
    return "; ".join(
        f"{kbps} kbps: {length.per_code:.4f} bits/code, {length.per_second / 1000:.3f} of "
        f"{length.packed_per_second / 1000:.3f} kbit/s, {length.saved:.1%} saved"
        for kbps, length in figures.items()
    )


def _scalars(figures: Mapping[str, CodeLength]) -> Iterator[tuple[str, float]]:
    for kbps, length in figures.items():
        yield f"held_out_bits_per_code/{kbps}_kbps", length.per_code
        yield f"held_out_bits_per_second/{kbps}_kbps", length.per_second
        yield f"held_out_saved/{kbps}_kbps", length.saved


def language_config(codec: Codec) -> ModelConfig:
    """A codec as far as its language model looks at it: rates, bandwidths, codebooks, segments.

    Raises ValueError for one whose bandwidths do not follow from its frame rate and codebooks.
    """
    segment = codec.segment_length
    config = ModelConfig(
        name=codec.name,
        sample_rate=codec.sample_rate,
        channels=codec.channels,
        bandwidths=tuple(sorted(codec.bandwidths)),
        causal=codec.causal,
        norm="none",
        normalize=codec.normalize,
        segment=None if segment is None else segment / codec.sample_rate,
        ratios=(codec.hop,),
        codebook_size=codec.codebook_size,
    )
    for bandwidth in config.bandwidths:
        if config.n_q(bandwidth) != codec.n_q(bandwidth):
            raise ValueError(
                f"codec: expected {config.n_q(bandwidth)} codebooks at {bandwidth:g} kbps, "
                f"{codec.name} has {codec.n_q(bandwidth)}"
            )
    return config


def _codebooks(codec: str) -> Tensor:
    """The codebooks of a program, float32 [K, N, D]."""
    with safe_open(find_program(codec), framework="pt") as file:
        name: str = json.loads(file.metadata()[METADATA_KEY])["codebooks"]
        tensor: Tensor = file.get_tensor(name)
    return tensor.float()


def train_lm(settings: LmSettings) -> Path:
    """Train the entropy model of a codec; returns its file in the run's folder. Raises as
    `open_run`, and ValueError under torchrun: one process trains it."""
    if (count := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise ValueError(f"torchrun: expected one process for an entropy model, found {count}")
    with processes(settings):
        run = open_run(settings)
        run.run()
    print(f"the entropy model: {run.entropy_file}", flush=True)
    return run.entropy_file


def open_run(settings: LmSettings) -> LmTrainer:
    """The run of `settings`, its codes made by the codec. Raises ValueError for bad settings and
    unusable recordings, OSError for files that cannot be read or written."""
    codec = Codec.load(settings.codec, threads=settings.threads)
    config = language_config(codec)
    codes = load_codes(settings.placed_data, codec, settings.seed)
    return LmTrainer(settings, config, _codebooks(settings.codec)[: config.n_codebooks], codes)
