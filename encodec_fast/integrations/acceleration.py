"""accelerate and restore: find the codecs in a model, put them on the native core, and back."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from torch import nn

from encodec_fast._native import cpu_info
from encodec_fast.integrations.modules import Accelerated, Stand, uninstall
from encodec_fast.integrations.seanet import UnsupportedError

Model = TypeVar("Model")

# Where packages define their codec, and the module here that knows it. A model of a package can
# only be there if that package was imported.
_KNOWN = {
    "transformers.models.encodec.modeling_encodec": "encodec_fast.integrations.transformers",
    "encodec.model": "encodec_fast.integrations.encodec",
    "audiocraft.models.encodec": "encodec_fast.integrations.audiocraft",
}


class _Found(NamedTuple):
    name: str  # within the model; empty: the model itself
    codec: nn.Module
    package: ModuleType  # of this folder

    def __str__(self) -> str:
        kind = f"{type(self.codec).__module__.partition('.')[0]} {type(self.codec).__name__}"
        return f"{self.name} ({kind})" if self.name else kind


def accelerate(
    model: Model, *, threads: int | None = None, exact_lengths: bool = False, quiet: bool = False
) -> Model:
    """Run the EnCodec models in `model` on the native core, and return the same object.

    model: encodec.EncodecModel, transformers.EncodecModel or audiocraft's EncodecModel, or any
    module (or plain object) that holds some: MusicGen, Bark. Their encoders, decoders and
    quantisers keep weights, names and interface. Weights on the CPU run there, on an NVIDIA GPU
    there, with the same codes, and may be moved at any time. What the native core cannot stand in
    for (training mode, inputs that want gradients, half precision, other devices, hooks within,
    autocast) runs in PyTorch as before, with one warning for each reason. Weights that change are
    noticed, but for writes through `.data` outside of training mode: call this again after those.

    threads: for the items of a batch, None: as many as PyTorch uses. exact_lengths: items of a
    padded batch get the codes they would get alone (transformers only), instead of those of their
    padded selves. quiet: do not say on the standard error what was done. Raises ValueError for a
    model that holds no codec, TypeError for no model at all; a codec with parts that are
    unsupported stays as it is, and a warning says which.
    """
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"threads: expected an integer of at least 1, found {threads!r}")
    found = list(_codecs(model))
    if not found:
        raise ValueError(
            f"model: expected an EncodecModel of encodec, transformers or audiocraft, or a model "
            f"that holds one, found {type(model).__name__}"
        )
    for each in found:
        _put_back(each)
        try:
            stands: list[Stand] = each.package.stands(each.codec, threads)
            each.package.attach(each.codec, exact_lengths)
        except UnsupportedError as error:
            warnings.warn(f"encodec_fast leaves {each} as it is: {error}", stacklevel=2)
            continue
        for stand in stands:
            stand.install()
        if not quiet:
            where = next(each.codec.parameters()).device
            level = cpu_info()["isa"] if where.type == "cpu" else where
            print(f"encodec_fast: {each} runs on the native core ({level})", file=sys.stderr)
    return model


def restore(model: Model) -> Model:
    """Undo `accelerate` in all of `model`, and return it. What was not accelerated stays as it is.

    Raises TypeError for something that is no model.
    """
    for each in _codecs(model):
        _put_back(each)
    return model


def _put_back(found: _Found) -> None:
    for module in found.codec.modules():
        if isinstance(module, Accelerated):
            uninstall(module)
    found.package.detach(found.codec)


def _codecs(model: Any) -> Iterator[_Found]:
    """Each codec in the model, once."""
    packages = [_package(ours) for path, ours in _KNOWN.items() if path in sys.modules]
    seen: set[int] = set()
    for prefix, root in _roots(model):
        for name, module in root.named_modules(prefix=prefix):
            for package in filter(None, packages):
                if isinstance(module, package.CODEC) and id(module) not in seen:
                    seen.add(id(module))
                    yield _Found(name, module, package)


def _package(name: str) -> ModuleType | None:
    """A module of this folder; None, with a warning, beside a version that it does not know."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        warnings.warn(f"encodec_fast does not know this version: {error}", stacklevel=4)
        return None


def _roots(model: Any) -> list[tuple[str, nn.Module]]:
    """The model, or the modules that a plain object (audiocraft's MusicGen) has as attributes."""
    if isinstance(model, nn.Module):
        return [("", model)]
    if isinstance(model, type) or not hasattr(model, "__dict__"):
        raise TypeError(f"model: expected a PyTorch model, found {model!r}")
    return [(name, value) for name, value in vars(model).items() if isinstance(value, nn.Module)]
