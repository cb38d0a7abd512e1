"""Codebooks of many shapes on the CPU and on cuda:0, by addresses on the device. A script: see
agreement_on_device.py. --small leaves large shapes out.

On a GPU the addresses are of memory that the driver gives, in the context of the native call
before; an emulated device takes those of numpy's arrays.
"""

from __future__ import annotations

import argparse
import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from agreement_on_device import same

from encodec_fast import _cuda, _native

# Codebooks, entries, dimension, rows: tiles that are not full in any direction, and dimensions
# whose residual is kept in global memory.
SHAPES = [
    (2, 2, 1, 1),
    (3, 33, 5, 17),
    (4, 128, 16, 128),
    (2, 129, 17, 130),
    (8, 1024, 128, 40),
    (2, 300, 128, 150),
    (2, 70, 129, 150),
    (1, 60, 160, 150),
    (2, 200, 300, 20),
]


@cache
def driver() -> ctypes.CDLL | None:
    """None where the device is emulated."""
    emulated = _cuda.device_info(0)[0] == "emulated"
    return None if emulated else ctypes.CDLL("libcuda.so.1")


class OnDevice:
    """A copy of an array on the device. One of a native object's must have been made before."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._host = array.copy()
        self.address = self._host.ctypes.data
        if (cuda := driver()) is None:
            return
        place, size = ctypes.c_uint64(), ctypes.c_size_t(max(array.nbytes, 1))
        assert cuda.cuMemAlloc_v2(ctypes.byref(place), size) == 0
        self.address = place.value
        assert cuda.cuMemcpyHtoD_v2(place, ctypes.c_void_p(self._host.ctypes.data), size) == 0

    def get(self) -> npt.NDArray[Any]:
        """What it is now."""
        if (cuda := driver()) is not None:
            place, size = ctypes.c_uint64(self.address), ctypes.c_size_t(self._host.nbytes)
            to = ctypes.c_void_p(self._host.ctypes.data)
            assert cuda.cuMemcpyDtoH_v2(to, place, size) == 0
        return self._host.copy()

    def close(self) -> None:
        if (cuda := driver()) is not None:
            assert cuda.cuMemFree_v2(ctypes.c_uint64(self.address)) == 0


def check(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> None:
    n_q, size, dim, rows = shape
    entries = rng.standard_normal((n_q, size, dim)).astype(np.float32)
    entries[:, -1] = entries[:, 0]  # a tie
    latents = rng.standard_normal((rows, dim)).astype(np.float32)
    latents[: rows // 4] = entries[0, rng.integers(0, size, rows // 4)]
    latents[-1] = rng.choice([0.0, 1e-40, np.inf, np.nan])
    books = _native.Codebooks(entries)
    device = _cuda.DeviceCodebooks(books, 0)
    held, codes = OnDevice(latents), OnDevice(np.zeros((n_q, rows), np.uint16))
    device.encode(held.address, rows, n_q, codes.address, 0)
    found = codes.get()
    same(f"codes of {shape}", [books.encode(latents, n_q)], [found])
    same("latents as they were", [latents], [held.get()])
    back = OnDevice(np.zeros((rows, dim), np.float32))
    device.decode(codes.address, rows, n_q, back.address, 0)
    same(f"latents of {shape}", [books.decode(found)], [back.get()])
    for array in (held, codes, back):
        array.close()


def check_refusals(rng: np.random.Generator) -> None:
    books = _native.Codebooks(rng.standard_normal((2, 4, 3)).astype(np.float32))
    device = _cuda.DeviceCodebooks(books, 0)
    latents, codes = OnDevice(np.zeros((5, 3), np.float32)), OnDevice(np.full((2, 5), 4, np.uint16))
    address, codes_address = latents.address, codes.address
    for call, message in (
        (lambda: device.encode(address, 5, 3, codes_address, 0), "n_q: expected 1..2, found 3"),
        (lambda: device.encode(address, -1, 1, codes_address, 0), "rows: expected 0.."),
        (lambda: device.encode(0, 5, 1, codes_address, 0), "latents: expected an address"),
        (lambda: device.encode(address + 1, 5, 1, codes_address, 0), "latents: expected an addr"),
        (lambda: device.decode(codes_address, 5, 2, address, 0), "codes: expected values below 4"),
        (lambda: _cuda.DeviceCodebooks(books, 99), "device: expected cuda:0..cuda:"),
    ):
        try:
            call()
        except ValueError as error:
            assert message in str(error), error
        else:
            raise AssertionError(f"no error: {message}")
    latents.close()
    codes.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    # Rows that give each multiprocessor a block of the largest shape, and of the one before.
    processors = _cuda.device_info(0)[3]
    many = [(2, 130, 128, 128 * processors + 3), (1, 70, 20, 32 * processors + 3)]
    for shape in SHAPES + many + [(1, 70, 130, 128 * processors + 1)]:
        if not options.small or (shape[0] * shape[1] <= 600 and shape[3] <= 150):
            check(rng, shape)
    check_refusals(rng)
    print("equal")


if __name__ == "__main__":
    main()
