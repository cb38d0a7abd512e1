"""The models of an evaluation, under the labels that its tables show."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from encodec_fast.codec import Codec
from encodec_fast.evaluation.recordings import Setting
from encodec_fast.program import Program, is_program
from encodec_fast.store import ModelNotFoundError, find_entropy, find_program


class EvaluatedModel(NamedTuple):
    """A program file, its entropy model's (None: without), and the bandwidths to evaluate.

    `source` is what the caller named, `label` what tables call it.
    """

    label: str
    source: str
    program: Path
    entropy: Path | None
    setting: Setting
    bandwidths: tuple[float, ...]

    def load(self) -> Codec:
        """The model on the native core, on one thread."""
        return Codec(Program.load(self.program), 1, self.entropy)


def find_models(
    models: Sequence[str | os.PathLike[str]], bandwidths: Sequence[float] | None, folder: Path
) -> tuple[list[EvaluatedModel], list[str]]:
    """Finds models by name, program file or checkpoint (models.checkpoints; needs torch).

    Checkpoints become programs with float32 weights in `folder`. A file's label is its stem, with
    its folder where another has the same. `bandwidths` in kbps: of each model those that it has,
    default all. Returns those that have one of them, and a note about each that lacks some. Raises
    ValueError (ModelNotFoundError) and OSError.
    """
    if not models:
        raise ValueError("models: expected at least one, found none")
    labels = _labels([os.fspath(model) for model in models])
    found: list[EvaluatedModel] = []
    notes: list[str] = []
    for index, (label, model) in enumerate(zip(labels, models, strict=True)):
        path, entropy = _locate(model, folder / f"{index}.safetensors")
        header = Program.load(path).header
        chosen = tuple(b for b in header.bandwidths if bandwidths is None or b in bandwidths)
        setting = Setting(header.sample_rate, header.channels)
        found.append(EvaluatedModel(label, os.fspath(model), path, entropy, setting, chosen))
        codec = found[-1].load()
        if entropy is not None and codec.entropy_model is None:
            raise ValueError(f"{entropy}: no entropy model")
        if lacking := set(bandwidths or ()) - set(chosen):
            end = "" if chosen else ": it is left out"
            notes.append(f"{label} has no {_listed(lacking)} kbps{end}")
    known = {bandwidth for model in found for bandwidth in model.bandwidths}
    missing = set(bandwidths or ()) - known
    if missing or not known:
        raise ValueError(f"bandwidth: none of the models has {_listed(missing)} kbps")
    return [model for model in found if model.bandwidths], notes


def _listed(bandwidths: Iterable[float]) -> str:
    return ", ".join(f"{bandwidth:g}" for bandwidth in sorted(bandwidths))


def _locate(model: str | os.PathLike[str], target: Path) -> tuple[Path, Path | None]:
    """The program and the entropy model; a checkpoint is written to `target` as a program."""
    try:
        path = find_program(model)
    except ModelNotFoundError:
        if not Path(model).exists():
            raise
        path = Path(model)
    if is_program(path):
        try:
            return path, find_entropy(model)
        except ModelNotFoundError:
            return path, None
    try:
        from encodec_fast.models.checkpoints import load_checkpoint
        from encodec_fast.models.export import export_model
    except ImportError as error:
        raise ValueError(
            f"{model}: a checkpoint needs `pip install 'encodec-fast[torch]'` ({error})"
        ) from None
    export_model(load_checkpoint(path), target)
    return target, None


def _folder(model: str) -> str:
    """The name of the folder that a file is in."""
    return Path(model).absolute().parent.name


def _labels(models: list[str]) -> list[str]:
    stems = [
        Path(model).stem if os.sep in model or Path(model).is_file() else model for model in models
    ]
    labels = [
        # A name, which is its own stem, has no folder to tell it from a file.
        stem if stems.count(stem) == 1 or model == stem else f"{_folder(model)}/{stem}"
        for model, stem in zip(models, stems, strict=True)
    ]
    for label, model in zip(labels, models, strict=True):
        if labels.count(label) > 1:
            raise ValueError(f"models: {model} is given twice, or another is called {label}, too")
    return labels
