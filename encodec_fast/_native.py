"""The one door to the native core: its classes, and the checks of arrays that cross it."""

from __future__ import annotations

import importlib
import re
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

try:
    from encodec_fast._core import (
        ArithmeticDecoder,
        ArithmeticEncoder,
        BitPacker,
        BitUnpacker,
        Codebooks,
        Decoder,
        Encoder,
        Graph,
        LanguageModel,
        LmCoder,
        Network,
        RangeDecoder,
        RangeEncoder,
        StaticCoder,
        cdf_reference,
        cdf_starts,
        crc32c,
        isa,
        segment_scale,
        supported_isas,
    )
except ModuleNotFoundError as error:
    raise ImportError(
        "encodec_fast._core, the native module, is not built. In a source tree: `pip install -e .`"
    ) from error

__all__ = [
    "ArithmeticDecoder",
    "ArithmeticEncoder",
    "BitPacker",
    "BitUnpacker",
    "Codebooks",
    "CpuInfo",
    "Decoder",
    "Encoder",
    "Graph",
    "LanguageModel",
    "LmCoder",
    "Network",
    "RangeDecoder",
    "RangeEncoder",
    "StaticCoder",
    "as_audio",
    "as_codes",
    "cdf_reference",
    "cdf_starts",
    "cpu_info",
    "crc32c",
    "cuda_available",
    "open_cuda",
    "segment_scale",
]

Audio = npt.NDArray[np.float32]
CodeArray = npt.NDArray[np.uint16]


class CpuInfo(TypedDict):
    """Instruction sets: the one in use, and all that this CPU and build have, plainest first."""

    isa: str
    supported: tuple[str, ...]


def cpu_info() -> CpuInfo:
    """The instruction sets: {"isa": "avx2", "supported": ("portable", "avx2")}, say.

    The names are "portable", "avx2", "avx512" and "avx512vnni". Without the environment variable
    ENCODEC_FAST_ISA the last supported one is in use; it forces another. Raises ValueError for an
    unknown name in it and for one that this CPU or build lacks.
    """
    return {"isa": isa(), "supported": tuple(supported_isas())}


def open_cuda(device: str) -> tuple[Any, int]:
    """The module `_cuda` and the number of the GPU that "cuda" or "cuda:N" names.

    Raises ValueError for another name or a number that there is not, OSError where the module was
    not built, and where the driver is missing, too old for it, or finds no GPU.
    """
    match = re.fullmatch(r"cuda(?::(\d{1,4}))?", device) if isinstance(device, str) else None
    if match is None:
        raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', found {device!r}")
    try:
        # Only here: it loads the driver.
        cuda: Any = importlib.import_module("encodec_fast._cuda")
    except ModuleNotFoundError:
        raise OSError(
            "device: this build of encodec_fast has no CUDA; install it from source where nvcc is "
            "(docs/cuda.md)"
        ) from None
    except ImportError as error:
        raise OSError(f"device: the CUDA module of this build cannot be loaded: {error}") from error
    number, count = int(match[1] or 0), cuda.device_count()
    if number >= count:
        raise ValueError(f"device: expected cuda:0..cuda:{count - 1}, found {device!r}")
    return cuda, number


def cuda_available() -> bool:
    """Whether there is a GPU that this build can use."""
    try:
        open_cuda("cuda")
    except OSError:
        return False
    return True


def as_audio(name: str, value: Any, shape: tuple[int | None, ...]) -> Audio:
    """`value` as a contiguous float32 array of finite samples of the given shape (None: any size).

    Raises ValueError naming the argument, what was expected and what was found.
    """
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise ValueError(f"{name}: expected floating-point samples, found {array.dtype}")
    _check_shape(name, array, shape)
    if array.dtype != np.float32:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    array = _contiguous(array)
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
    if array.size and (array.max() >= size or (array.dtype.kind == "i" and array.min() < 0)):
        raise ValueError(
            f"{name}: expected codes in 0..{size - 1}, found {array.min()}..{array.max()}"
        )
    return _contiguous(array if array.dtype == np.uint16 else array.astype(np.uint16))


def _contiguous(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As np.require(array, requirements=["C", "A"]), without its time where nothing is to do."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else array.copy(order="C")


def _check_shape(name: str, array: npt.NDArray[Any], shape: tuple[int | None, ...]) -> None:
    found = array.shape
    fits = len(found) == len(shape)
    for size, expected in zip(found, shape, strict=False):
        fits = fits and expected in (None, size)
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape [{sizes}], found {list(found)}")
