"""Settings of small codec runs, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from recordings import write_corpus

from encodec_fast.models.config import CONFIGS, ModelConfig
from encodec_fast.training.codec_settings import (
    AdversarySettings,
    CodecSettings,
    LossSettings,
    QuantizerSettings,
    ValidationSettings,
)
from encodec_fast.training.data import Batch
from encodec_fast.training.data_settings import DataSettings, ReverbSettings
from encodec_fast.training.run_settings import OptimizerSettings
from encodec_fast.training.sources import SourceSettings

TINY = replace(
    CONFIGS["nano_24khz"],
    name="tiny",
    n_filters=2,
    dimension=4,
    codebook_size=16,
    bandwidths=(0.3, 0.6),
)
ALL = {"l1": 0.1, "snr": 1.0, "mel": 1.0, "adversarial": 3.0, "features": 3.0}


def tiny_settings(folder: Path, architecture: ModelConfig = TINY, **changes: Any) -> CodecSettings:
    """A run of four steps with every loss, two of them without quantiser, in `folder`/run; the
    recordings are made where they are not."""
    audio = folder / "audio"
    if not audio.exists():
        audio.mkdir()
        write_corpus(audio)
    settings = CodecSettings(
        out=str(folder / "run"),
        audio=str(audio),
        data=DataSettings(
            train=(SourceSettings("MANIFEST.csv", where={"split": ("train",)}),),
            reverb=ReverbSettings(probability=0.0),
        ),
        architecture=architecture,
        steps=4,
        batch=2,
        seconds=0.2,
        log_steps=1,
        save_steps=2,
        optimizer=OptimizerSettings(lr=1e-3),
        losses=LossSettings(weights=ALL, mel="audiocraft"),
        adversary=AdversarySettings(preset="small", update_probability=1.0),
        quantizer=QuantizerSettings(plain_steps=2, kmeans_iterations=2),
        validation=ValidationSettings(steps=4, clips=2, seconds=0.5, examples=1),
    )
    return replace(settings, **changes)


def noise_batch(settings: CodecSettings, seed: int = 1) -> Batch:
    """A batch of white noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (settings.batch, settings.config.channels, settings.samples)
    waves = 0.2 * torch.randn(shape, generator=generator)
    names = [f"noise{index}" for index in range(settings.batch)]
    return Batch(waves, ["speech"] * settings.batch, names, [])
