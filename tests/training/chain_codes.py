"""Codes that follow from each other by a rule, and a small run that learns them."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encodec_fast.models.config import CONFIGS
from encodec_fast.training.code_data import CodedRecording, TrainingCodes
from encodec_fast.training.lm_settings import CodeDataSettings, LmOptimizerSettings, LmSettings
from encodec_fast.training.lm_trainer import LmTrainer
from encodec_fast.training.sources import SourceSettings

TINY = replace(
    CONFIGS["nano_24khz"], name="tiny", dimension=4, codebook_size=16, bandwidths=(0.3, 0.6)
)


def chain(frames: int, seed: int) -> NDArray[np.uint16]:
    """Codes [2, frames] that follow from those of the frame before, from a random start on."""
    codes = np.zeros((2, frames), np.uint16)
    codes[:, 0] = np.random.default_rng(seed).integers(16, size=2)
    for t in range(1, frames):
        codes[0, t] = (5 * codes[0, t - 1] + 3) % 16
        codes[1, t] = (codes[1, t - 1] + codes[0, t - 1]) % 16
    return codes


def recording(name: str, *segments: NDArray[np.uint16], kind: str = "speech") -> CodedRecording:
    """A recording at 75 frames a second."""
    seconds = sum(part.shape[1] for part in segments) / 75
    return CodedRecording(name, kind, list(segments), seconds)


CODES = TrainingCodes(
    [recording(f"plain {seed}", chain(90, seed)) for seed in range(10)],
    [recording(f"varied {seed}", chain(90, seed)) for seed in range(10, 30)],
    [recording("first", chain(80, 100)), recording("second", chain(40, 101))],
    [("broken.wav", "no audio")],
)
CODEBOOKS = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(1))


def settings(out: Path, **changes: Any) -> LmSettings:
    """A run of seconds."""
    optimizer = LmOptimizerSettings(lr=2e-2, warmup=10)
    plain = LmSettings(
        out=str(out),
        data=CodeDataSettings((SourceSettings("audio"),), copies=0),
        codec="tiny",
        device="cpu",
        steps=60,
        dim=16,
        heads=2,
        layers=1,
        batch=8,
        seconds=0.8,
        average_decay=0.9,
        log_steps=10,
        check_steps=20,
        save_steps=20,
        optimizer=optimizer,
    )
    return replace(plain, **changes)


def trainer(out: Path, **changes: Any) -> LmTrainer:
    """The run, on the chain."""
    return LmTrainer(settings(out, **changes), TINY, CODEBOOKS, CODES)


def losses_of(run: LmTrainer, hang_after: int | None = None) -> dict[int, str]:
    """Runs it; the loss of every step, to the last bit, also printed as it comes. After one step it
    can wait to be killed."""
    found: dict[int, str] = {}
    step = run.train_step

    def logged() -> float:
        number = run.step
        loss = step()
        found[number] = loss.hex()
        print(number, found[number], flush=True)
        if number == hang_after:
            signal.pause()
        return loss

    run.train_step = logged  # type: ignore[method-assign]
    run.run()
    return found


if __name__ == "__main__":
    folder, changes, last = sys.argv[1:]
    losses_of(trainer(Path(folder), **json.loads(changes)), int(last))
