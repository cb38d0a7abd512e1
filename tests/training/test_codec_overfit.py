"""The whole recipe learns: ten clips by heart in 300 steps, heard at 0 dB SI-SNR or better."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from signals import audio_root

from encodec_fast.evaluation.metrics import si_snr
from encodec_fast.models.config import CONFIGS
from encodec_fast.training.codec_settings import (
    CodecSettings,
    LossSettings,
    QuantizerSettings,
    ValidationSettings,
)
from encodec_fast.training.codec_trainer import CodecTrainer
from encodec_fast.training.data_settings import DataSettings, ReverbSettings
from encodec_fast.training.run_settings import OptimizerSettings
from encodec_fast.training.sources import SourceSettings

CLIPS = 10
CONFIG = replace(
    CONFIGS["nano_24khz"],
    name="overfit",
    ratios=(5, 4, 4),
    codebook_size=256,
    bandwidths=(9.6,),
)


def write_clips(folder: Path) -> NDArray[np.float32]:
    """The second second of ten recordings of speech, float32 [clips, 1, samples], also as files."""
    manifest = audio_root() / "MANIFEST.csv"
    if not manifest.exists():
        pytest.skip(f"needs real recordings: no {manifest}")
    with manifest.open(newline="", encoding="utf-8") as lines:
        rows = [
            row
            for row in csv.DictReader(lines)
            if row["split"] == "train" and row["kind"] == "speech" and float(row["seconds"]) > 3
        ]
    one_voice = [row for row in rows if row["sample_rate"] == "22050"][:CLIPS]
    folder.mkdir()
    clips = []
    for number, row in enumerate(one_voice):
        samples, rate = soundfile.read(audio_root() / row["path"], always_2d=True)
        wave = soxr.resample(samples.mean(axis=1), rate, CONFIG.sample_rate)
        clip = wave[CONFIG.sample_rate : 2 * CONFIG.sample_rate]
        soundfile.write(folder / f"clip_{number:05d}.wav", clip, CONFIG.sample_rate)
        clips.append(clip)
    return np.stack(clips)[:, None].astype(np.float32)


def test_ten_clips_by_heart(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips")
    sources = (SourceSettings(str(tmp_path / "clips")),)
    settings = CodecSettings(
        out=str(tmp_path / "run"),
        data=DataSettings(
            train=sources,
            valid=sources,
            gain_db=(-6.0, 0.0),
            reverb=ReverbSettings(probability=0.0),
            cache="cache",
        ),
        architecture=CONFIG,
        steps=300,
        batch=6,
        seconds=0.32,
        precision="bfloat16",
        average_decay=0.98,
        optimizer=OptimizerSettings(
            lr=3e-3, betas=(0.8, 0.98), warmup=20, schedule="cosine", clip=6.0
        ),
        losses=LossSettings(weights={"snr": 1.0, "mel": 0.3}, commitment=6.0, mel="audiocraft"),
        quantizer=QuantizerSettings(plain_steps=100, initial_batches=20, kmeans_iterations=10),
        validation=ValidationSettings(steps=0),
    )
    torch.set_num_threads(1)
    trainer = CodecTrainer(settings)
    trainer.run()
    with torch.no_grad():
        decoded = trainer.averaged_model()(torch.from_numpy(clips)).numpy()
    ratios = [si_snr(x, y, CONFIG.sample_rate) for x, y in zip(clips, decoded, strict=True)]
    assert np.mean(ratios) >= 0, ratios
    assert (tmp_path / "run" / "last.pt").exists()
