"""The one door to the native core: its classes, and the checks of arrays that cross it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

try:
    from encodec_fast._core import (
        BitPacker,
        BitUnpacker,
        Codebooks,
        Decoder,
        Encoder,
        Graph,
        isa,
        segment_scale,
    )
except ModuleNotFoundError as error:
    raise ImportError(
        "encodec_fast._core, the native module, is not built. In a source tree: `pip install -e .`"
    ) from error

__all__ = [
    "BitPacker",
    "BitUnpacker",
    "Codebooks",
    "Decoder",
    "Encoder",
    "Graph",
    "as_audio",
    "as_codes",
    "cpu_info",
    "segment_scale",
]

Audio = npt.NDArray[np.float32]
CodeArray = npt.NDArray[np.uint16]


def cpu_info() -> dict[str, str]:
    """The instruction set in use: {"isa": "avx2"} or {"isa": "portable"}.

    The environment variable ENCODEC_FAST_ISA forces one; raises ValueError for an unknown name
    and for one that this CPU lacks.
    """
    return {"isa": isa()}


def as_audio(name: str, value: Any, shape: tuple[int | None, ...]) -> Audio:
    """`value` as a contiguous float32 array of finite samples of the given shape (None: any size).

    Raises ValueError naming the argument, what was expected and what was found.
    """
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise ValueError(f"{name}: expected floating-point samples, found {array.dtype}")
    _check_shape(name, array, shape)
    with np.errstate(over="ignore"):
        array = np.require(array, np.float32, ["C", "A"])
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite samples, found NaN or infinity")
    return array


def as_codes(name: str, value: Any, shape: tuple[int | None, ...], size: int) -> CodeArray:
    """`value` as a contiguous uint16 array of codes below `size` with the given shape.

    Raises ValueError naming the argument, what was expected and what was found.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integer codes, found {array.dtype}")
    _check_shape(name, array, shape)
    if array.size and not (array.min() >= 0 and array.max() < size):
        raise ValueError(
            f"{name}: expected codes in 0..{size - 1}, found {array.min()}..{array.max()}"
        )
    return np.require(array, np.uint16, ["C", "A"])


def _check_shape(name: str, array: npt.NDArray[Any], shape: tuple[int | None, ...]) -> None:
    fits = array.ndim == len(shape) and all(
        expected in (None, found) for expected, found in zip(shape, array.shape, strict=True)
    )
    if not fits:
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape [{expected}], found {list(array.shape)}")
