"""The first trainer: signal-to-noise, multi-scale mel and commitment losses, no discriminator.

    python -m encodec_fast.training.trainer --audio DIR --out DIR --minutes 95

The run is bounded by wall time (or steps); it can be killed at any time and goes on from its last
checkpoint with `--resume`.
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from encodec_fast.models.config import CONFIGS, ModelConfig
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.training.balancer import Balancer
from encodec_fast.training.data import Crops, build_cache
from encodec_fast.training.losses import MelLoss, noise_ratio
from encodec_fast.training.run import Run, RunSettings, parse_settings, use_threads

DEFAULT_BANDWIDTH = 6.0


@dataclass
class Settings(RunSettings):
    """A run's settings; every field is a command line option."""

    minutes: float = 90.0
    seconds: float = 0.64
    config: str = "nano_24khz"
    plain_steps: int = 300
    snr_weight: float = 1.0
    mel_weight: float = 1.0
    mel_floor: float = 1e-6
    commitment_weight: float = 1.0
    save_minutes: float = 3.0


class Trainer(Run):
    """One training run: model, moving average of its weights, optimiser, data and log."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.settings = settings
        self.config: ModelConfig = CONFIGS[settings.config]
        if self.config.segment is not None or self.config.channels != 1:
            raise ValueError(f"config must be causal and mono, {settings.config} is not")
        torch.manual_seed(settings.seed)
        self.random = random.Random(settings.seed)
        self.model = EncodecModel(self.config).train()
        self.average = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=settings.lr, betas=(0.5, 0.9))
        self.mel = MelLoss(self.config.sample_rate, floor=settings.mel_floor)
        self.balancer = Balancer({"snr": settings.snr_weight, "mel": settings.mel_weight})
        if settings.resume and (self.out / "last.pt").exists():
            self.load()
        self.crops = self._open_data()

    def _open_data(self) -> Crops:
        cache = self.out / f"train_{self.config.sample_rate}.s16"
        if not cache.exists():
            build_cache(Path(self.settings.audio), cache, self.config.sample_rate)
        frames = round(self.settings.seconds * self.config.frame_rate)
        return Crops(cache, frames * self.config.hop, self.settings.seed + self.step)

    def load(self) -> None:
        """Take up the run from its last checkpoint."""
        saved = torch.load(self.out / "last.pt", weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.average = saved["average"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.elapsed = saved["step"], saved["elapsed"]
        torch.manual_seed(self.settings.seed + self.step)

    def save(self) -> None:
        """Write last.pt, all of the run's state."""
        state = {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "settings": asdict(self.settings),
        }
        self._write("last.pt", state)

    @torch.no_grad()
    def _initialise_codebooks(self) -> None:
        """k-means on the latents of many crops: one batch has fewer frames than codes."""
        latents = torch.cat([self.model.encoder(self._batch()) for _ in range(20)])
        residual = latents.transpose(1, 2).reshape(-1, latents.shape[1])
        for index in range(self.config.n_codebooks):
            codebook = self.model.quantizer.codebook(index)
            codebook.kmeans_iterations = 10
            codebook.initialise(residual)
            residual = residual - F.embedding(codebook.quantize(residual), codebook.embed)

    def _batch(self) -> Tensor:
        return self.crops.batch(self.settings.batch)

    def _bandwidth(self) -> float:
        """One bandwidth for the batch; the default one is drawn three times as often."""
        bandwidths = self.config.bandwidths
        weights = [3 if bandwidth == DEFAULT_BANDWIDTH else 1 for bandwidth in bandwidths]
        return self.random.choices(bandwidths, weights)[0]

    def _backward(self, x: Tensor) -> tuple[dict[str, float], Tensor]:
        """Forward and backward of one batch: the losses, and the codes of the first codebook.

        The waveform losses are balanced by their gradients; the commitment loss adds to them as
        a mean over the batch, hence the division of the balanced gradient by the batch size.
        """
        z: Tensor = self.model.encoder(x)
        if self.step < self.settings.plain_steps:
            y, commitment, codes = self.model.decoder(z), torch.zeros(()), torch.zeros(1).long()
        else:
            n_q = self.config.n_q(self._bandwidth())
            quantized = self.model.quantizer(z, n_q)
            y = self.model.decoder(quantized.latents)
            commitment, codes = quantized.commitment, quantized.codes[0]
        output = y.detach().requires_grad_()
        losses = {"snr": noise_ratio(x, output), "mel": self.mel(x, output)}
        gradient = self.balancer.gradient(losses, output) / len(x)
        total = (y * gradient).sum() + self.settings.commitment_weight * commitment
        torch.autograd.backward(total)
        losses["commitment"] = commitment
        return {name: loss.item() for name, loss in losses.items()}, codes

    def train_step(self) -> tuple[dict[str, float], Tensor]:
        """One update; returns the losses and the codes of the first codebook."""
        settings = self.settings
        if self.step == settings.plain_steps:
            self._initialise_codebooks()
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        report, codes = self._backward(self._batch())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self._update_average()
        self.step += 1
        return {**report, "grad": norm.item()}, codes

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = self._average_share()
        for key, value in self.model.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)

    def _run(self) -> None:
        """Logs every 100 steps, saves now and then."""
        reports: list[dict[str, float]] = []
        used: set[int] = set()
        saved = logged = started = time.monotonic()
        before = self.elapsed
        while self.progress() < 1:
            losses, codes = self.train_step()
            now = time.monotonic()
            self.elapsed = before + now - started
            reports.append(losses)
            used.update(codes.flatten().tolist())
            if self.step % 100 == 0:
                self._log(reports, len(used), now - logged)
                reports, used, logged = [], set(), now
            if now - saved > 60 * self.settings.save_minutes:
                self.save()
                saved = now

    def _log(self, reports: list[dict[str, float]], used: int, seconds: float) -> None:
        """One line: mean losses since the last one, codes in use in codebook 0, speed."""
        count = len(reports)
        means = " ".join(
            f"{name} {sum(report[name] for report in reports) / count:.4f}" for name in reports[0]
        )
        line = (
            f"step {self.step} {means} codes {used} lr {self._learning_rate():.2e}"
            f" s/step {seconds / count:.3f} minutes {self.elapsed / 60:.1f}"
        )
        self._report("train.log", line)


if __name__ == "__main__":
    settings = parse_settings(Settings, __doc__)
    use_threads(settings)
    Trainer(settings).run()
