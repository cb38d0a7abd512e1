"""Trains the entropy model of a codec (docs/models.md): its language model and static tables.

    python -m encodec_fast.training.lm_trainer --audio DIR --codec nano_24khz --out DIR --minutes 45

The codes of the training recordings are made first, then training is bounded by wall time (or
steps); it can be killed at any time and goes on from its last checkpoint with `--resume`. lm.pt has
the averaged weights that did best on the recordings held out of the training split.
"""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from encodec_fast.codec import Codec
from encodec_fast.models.config import CONFIGS, ModelConfig
from encodec_fast.models.lm import LanguageModel
from encodec_fast.store import find_program
from encodec_fast.training.code_data import ENDED, CodeSequences, TrainingCodes, load_codes
from encodec_fast.training.code_length import as_shipped, bits_per_code, shifted
from encodec_fast.training.lm_start import initialise
from encodec_fast.training.run import Run, RunSettings, parse_settings, use_threads
from encodec_fast.training.static_tables import balanced, count_codes, table_widths

POSITIONS = 60.0  # seconds: random offsets of the positions go so far


@dataclass
class Settings(RunSettings):
    """A run's settings; every field is a command line option."""

    minutes: float = 45.0
    seconds: float = 5.0
    lr: float = 5e-3
    warmup: int = 150
    average_decay: float = 0.995
    codec: str = "nano_24khz"
    copies: int = 6
    dim: int = 72
    heads: int = 3
    layers: int = 5
    weight_decay: float = 0.01
    dropout: float = 0.0
    check_minutes: float = 3.0

    def __post_init__(self) -> None:
        if self.dim < 4 or self.dim % 2 or self.heads < 1 or self.dim % self.heads:
            raise ValueError(
                f"dim: expected an even number that heads divide, found {self.dim} and {self.heads}"
            )
        at_least = {"layers": 1, "batch": 1, "warmup": 1, "threads": 1, "copies": 0, "steps": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected at least {least}, found {getattr(self, name)}")
        for name in ("seconds", "lr", "clip", "check_minutes", "minutes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected above 0, found {getattr(self, name)}")
        for name in ("weight_decay", "dropout", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: expected from 0 to 1, found {getattr(self, name)}")


class LmTrainer(Run):
    """One training run: model, moving average of its weights, optimiser, codes and log."""

    def __init__(
        self, settings: Settings, config: ModelConfig, codebooks: Tensor, codes: TrainingCodes
    ) -> None:
        super().__init__(settings)
        self.settings = settings
        self.config = config
        self.held_out = codes.held_out
        torch.manual_seed(settings.seed)
        counts = balanced(
            [
                count_codes(np.concatenate(parts, axis=1), config.codebook_size)
                for parts in codes.plain.values()
            ]
        )
        self.widths = table_widths(counts)
        self.model = self._new_model()
        initialise(self.model, codebooks, counts)
        self.average = {key: value.clone() for key, value in self.model.state_dict().items()}
        matrices = [value for value in self.model.parameters() if value.ndim > 1]
        vectors = [value for value in self.model.parameters() if value.ndim == 1]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), fused=True)
        self.best = math.inf
        if settings.resume and (self.out / "last.pt").exists():
            self.load()
        length = round(settings.seconds * config.frame_rate)
        train = {kind: parts + codes.varied.get(kind, []) for kind, parts in codes.plain.items()}
        self.sequences = CodeSequences(train, length, settings.seed + self.step)
        self.random = np.random.default_rng([settings.seed, self.step])

    def _new_model(self) -> LanguageModel:
        settings = self.settings
        return LanguageModel(self.config, settings.dim, settings.heads, settings.layers)

    def load(self) -> None:
        """Take up the run from its last checkpoint. Raises ValueError for another model's."""
        saved = torch.load(self.out / "last.pt", weights_only=True)
        for name in ("codec", "dim", "heads", "layers"):
            expected, found = getattr(self.settings, name), saved["settings"][name]
            if found != expected:
                raise ValueError(f"{self.out / 'last.pt'}: expected {name} {expected}, not {found}")
        self.model.load_state_dict(saved["model"])
        self.average = saved["average"]
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step, self.elapsed, self.best = saved["step"], saved["elapsed"], saved["best"]
        torch.manual_seed(self.settings.seed + self.step)

    def save(self) -> None:
        """Write last.pt, all of the run's state."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
            "settings": asdict(self.settings),
        }
        self._write("last.pt", state)

    def _backward(self, codes: Tensor) -> float:
        """Forward and backward of codes int64 [B, n_q, T]: the loss in bits per code.

        Half of the batches are at the positions of a file's start, half at random ones. The
        codebooks' gradients are gathered one by one, so that one codebook's logits are in memory
        at a time.
        """
        model, dropout = self.model, self.settings.dropout
        n_q = codes.shape[1]
        previous = shifted(codes)
        x = torch.stack([model.emb[k](previous[:, k]) for k in range(n_q)]).sum(dim=0)
        offset = 0
        if self.random.random() < 0.5:
            offset = int(self.random.integers(round(POSITIONS * self.config.frame_rate)))
        hidden, _ = model.transformer(F.dropout(x, dropout), None, offset)
        cut = hidden.detach().requires_grad_()
        total = 0.0
        for k in range(n_q):
            logits = model.linears[k](F.dropout(cut, dropout))
            loss = F.cross_entropy(logits.flatten(0, 1), codes[:, k].flatten(), ignore_index=ENDED)
            torch.autograd.backward(loss / n_q)
            total += loss.item() / n_q
        torch.autograd.backward(hidden, cut.grad)
        return total / math.log(2)

    def train_step(self) -> float:
        """One update; returns the loss in bits per code."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        bandwidth = self.config.bandwidths[self.random.integers(len(self.config.bandwidths))]
        codes = self.sequences.batch(settings.batch)[:, : self.config.n_q(bandwidth)]
        loss = self._backward(codes)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self._update_average()
        self.step += 1
        return loss

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = self._average_share()
        values = list(self.model.state_dict().values())
        torch._foreach_lerp_(list(self.average.values()), values, 1 - decay)

    def check(self) -> dict[str, float]:
        """Bits per code of the held-out recordings per bandwidth, with the averaged weights as
        shipped. Where their mean is the lowest so far, writes lm.pt."""
        model = self._new_model()
        model.load_state_dict(as_shipped(self.average))
        figures = bits_per_code(model, self.held_out)
        mean = sum(figures.values()) / len(figures)
        if mean < self.best:
            self.best = mean
            state = {
                "name": self.config.name,
                "lm": self.average,
                "dim": self.settings.dim,
                "heads": self.settings.heads,
                "layers": self.settings.layers,
                "widths": torch.from_numpy(self.widths),
                "settings": asdict(self.settings),
                "figures": {"step": self.step, "minutes": self.elapsed / 60, **figures},
            }
            self._write("lm.pt", state)
        return figures

    def _run(self) -> None:
        """Checks, logs and saves every few minutes."""
        losses: list[float] = []
        checked = started = time.monotonic()
        before = self.elapsed
        while self.progress() < 1:
            losses.append(self.train_step())
            now = time.monotonic()
            self.elapsed = before + now - started
            if now - checked > 60 * self.settings.check_minutes or self.progress() == 1:
                self._log(losses, (now - checked) / len(losses))
                self.save()
                losses, checked = [], time.monotonic()

    def _log(self, losses: Sequence[float], seconds: float) -> None:
        """One line: mean loss since the last one, bits per code held out, speed."""
        figures = " ".join(f"{kbps} kbps {bits:.4f}" for kbps, bits in self.check().items())
        line = (
            f"step {self.step} loss {np.mean(losses):.4f} held out {figures}"
            f" lr {self._learning_rate():.2e} s/step {seconds:.3f} minutes {self.elapsed / 60:.1f}"
        )
        self._report("lm.log", line)


def load_trained(path: Path) -> tuple[LanguageModel, NDArray[np.int64]]:
    """What a run wrote to lm.pt: the averaged language model, float32, and the static tables'
    widths [K, N]. Raises FileNotFoundError, and ValueError for other files."""
    try:
        saved = torch.load(path, weights_only=True)
        config = CONFIGS[saved["name"]]
        model = LanguageModel(config, saved["dim"], saved["heads"], saved["layers"])
        model.load_state_dict(saved["lm"])
        return model.eval(), saved["widths"].numpy()
    except (KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: not a trained entropy model: {error!r}") from None


def open_run(settings: Settings) -> LmTrainer:
    """The run of `settings`, its codes made by the codec. Raises ValueError for a codec that codes
    segments or has no configuration."""
    codec = Codec.load(settings.codec)
    config = CONFIGS.get(codec.name)
    if config is None or not codec.causal:
        raise ValueError(
            f"codec: expected a causal model of {', '.join(CONFIGS)}, not {codec.name}"
        )
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    codes = load_codes(Path(settings.audio), out, codec, settings.copies, settings.seed)
    codebooks = load_file(find_program(settings.codec))["codebooks"].float()
    return LmTrainer(settings, config, codebooks, codes)


if __name__ == "__main__":
    settings = parse_settings(Settings, __doc__)
    use_threads(settings)
    open_run(settings).run()
