"""From a configuration to a finished run: processes, threads, the trainer, the model's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from encodec_fast.models.collective import rank
from encodec_fast.models.export import export_model
from encodec_fast.store import SUFFIX
from encodec_fast.training.checkpoint import LAST
from encodec_fast.training.codec_settings import CodecSettings
from encodec_fast.training.codec_trainer import CodecTrainer
from encodec_fast.training.configuration import (
    CONFIGS_FOLDER,
    find_config,
    load_settings,
    read_task,
)
from encodec_fast.training.run import SETTINGS, processes


def train(config: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train what `config`, a YAML file or the name of one of ours, describes; returns the model.

    overrides: `key=value` that replace the file's settings. The settings.yaml of a run is of the
    folder that it lies in, wherever that was moved, unless `out` is given. A configuration of ours
    that starts from a trained model has no `plain_steps` unless they are given. Under torchrun all
    processes train one model. Raises ValueError for wrong settings and unusable data, OSError for
    what cannot be read or written.
    """
    path = find_config(config)
    given = {override.partition("=")[0].strip() for override in overrides}
    if path.name == SETTINGS and (path.parent / LAST).exists() and "out" not in given:
        overrides = [*overrides, f"out={path.parent}"]
    if read_task(path) == "codec":
        settings = load_settings(CodecSettings, path, overrides)
        ours = path.parent == CONFIGS_FOLDER
        if ours and settings.start_from and not given & {"quantizer", "quantizer.plain_steps"}:
            settings = replace(settings, quantizer=replace(settings.quantizer, plain_steps=0))
        return train_codec(settings.rooted())
    from encodec_fast.training.lm_settings import LmSettings
    from encodec_fast.training.lm_trainer import train_lm

    return train_lm(load_settings(LmSettings, path, overrides).rooted())


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
            if not trainer.coding():
                trainer.note(
                    f"warning: {target.name} codes nothing: the run ended at step {trainer.step}, "
                    f"its codebooks start after quantizer.plain_steps="
                    f"{settings.quantizer.plain_steps}"
                )
        return target
