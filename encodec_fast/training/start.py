"""From a configuration to a finished run: processes, threads, the trainer, the model's file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from encodec_fast.models.collective import rank
from encodec_fast.models.export import export_model
from encodec_fast.store import SUFFIX
from encodec_fast.training.codec_settings import CodecSettings
from encodec_fast.training.codec_trainer import CodecTrainer
from encodec_fast.training.configuration import load_settings, read_task
from encodec_fast.training.run import processes


def train(config: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train what `config`, a YAML file or the name of one of ours, describes; returns the model.

    overrides: `key=value` that replace the file's settings. Under torchrun all processes train one
    model. Raises ValueError for wrong settings and unusable data, OSError for what cannot be read
    or written.
    """
    if read_task(config) == "codec":
        return train_codec(load_settings(CodecSettings, config, overrides))
    from encodec_fast.training.lm_settings import LmSettings
    from encodec_fast.training.lm_trainer import train_lm

    return train_lm(load_settings(LmSettings, config, overrides))


def train_codec(settings: CodecSettings) -> Path:
    """Train a codec; returns its program in the run's folder, with the averaged weights in
    float16."""
    with processes(settings):
        trainer = CodecTrainer(settings)
        trainer.run()
        target = trainer.out / (trainer.config.name + SUFFIX)
        if rank() == 0:
            export_model(trainer.averaged_model(), target, "float16")
            print(f"the model: {target}", flush=True)
        return target
