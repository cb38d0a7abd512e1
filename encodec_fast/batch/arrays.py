"""Arrays in numpy's .npy layout, read from files that are not to be trusted."""

from __future__ import annotations

import math
import re
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_MAGIC = b"\x93NUMPY\x01\x00"
# As numpy writes it. Its own reader evaluates a header, in which others may have written anything.
_HEADER = re.compile(
    rb"\{'descr': '[<|](u[12])', 'fortran_order': False, "
    rb"'shape': \((\d{1,15}),(?: (\d{1,15}))?\), \} *\n"
)


def write_array(stream: IO[bytes], array: npt.NDArray[Any]) -> None:
    """Appends an array as np.save does; the header is our own, so that the bytes do not depend on
    numpy's version."""
    kind = array.dtype.newbyteorder("<")
    shape = tuple(map(int, array.shape))
    header = f"{{'descr': '{kind.str}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(_MAGIC) + 2 + len(header) + 1) % 64) + b"\n"
    stream.write(_MAGIC + len(header).to_bytes(2, "little") + header)
    stream.write(np.ascontiguousarray(array, kind).tobytes())


def read_array(stream: IO[bytes], dtype: type[np.generic], left: int) -> npt.NDArray[Any]:
    """The next array of a stream in which at most `left` bytes follow, of one or two dimensions.
    Raises ValueError for another dtype, for what is no array and for one that is not whole."""
    start = stream.read(len(_MAGIC) + 2)
    if len(start) < len(_MAGIC) + 2 or start[:-2] != _MAGIC:
        raise ValueError("expected an array in the .npy format 1.0")
    header = _HEADER.fullmatch(stream.read(int.from_bytes(start[-2:], "little")))
    kind = np.dtype(dtype)
    if header is None or header[1].decode() != kind.str[1:]:
        raise ValueError(f"expected an array of {kind} in C order, found another or none")
    shape = [int(extent) for extent in header.groups()[1:] if extent is not None]
    size = math.prod(shape) * kind.itemsize
    if size > left:  # before anything is allocated: a header may promise what it likes
        raise ValueError(f"truncated (an array of shape {shape} is not in {left} bytes)")
    data = read_exactly(stream, size)
    return np.frombuffer(data, kind.newbyteorder("<")).reshape(shape).astype(kind, copy=False)


def read_exactly(stream: IO[bytes], size: int) -> bytearray:
    """`size` bytes, which the caller knows to be no more than the file has. Raises ValueError for a
    stream that ends before."""
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        part = stream.read(min(size - at, 1 << 24))
        if not part:
            raise ValueError(f"truncated ({size - at} more bytes expected)")
        view[at : at + len(part)] = part
        at += len(part)
    return data


def bytes_left(stream: IO[bytes]) -> int:
    """Bytes from where a stream stands to its end."""
    here = stream.tell()
    end = stream.seek(0, 2)
    stream.seek(here)
    return end - here
