"""Codebooks of many shapes on the CPU and on cuda:0, by addresses on the device. A script: see
agreement_on_device.py. On a GPU it needs PyTorch, whose tensors have such addresses; an emulated
device takes those of numpy's arrays."""

from __future__ import annotations

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


def upload(array: npt.NDArray[Any]) -> tuple[Any, int]:
    """Something that holds a copy on the device, and its address."""
    if _cuda.device_info(0)[0] == "emulated":
        copy = array.copy()
        return copy, copy.ctypes.data
    import torch

    tensor = torch.from_numpy(array).to("cuda:0")
    torch.cuda.synchronize()
    return tensor, tensor.data_ptr()


def download(held: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = held if isinstance(held, np.ndarray) else held.cpu().numpy()
    return array


def check(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> None:
    n_q, size, dim, rows = shape
    entries = rng.standard_normal((n_q, size, dim)).astype(np.float32)
    entries[:, -1] = entries[:, 0]  # a tie
    latents = rng.standard_normal((rows, dim)).astype(np.float32)
    latents[: rows // 4] = entries[0, rng.integers(0, size, rows // 4)]
    latents[-1] = rng.choice([0.0, 1e-40, np.inf, np.nan])
    books = _native.Codebooks(entries)
    device = _cuda.DeviceCodebooks(books, 0)
    held, address = upload(latents)
    codes, codes_address = upload(np.zeros((n_q, rows), np.uint16))
    device.encode(address, rows, n_q, codes_address, 0)
    found = download(codes)
    same(f"codes of {shape}", [books.encode(latents, n_q)], [found])
    same("latents as they were", [latents], [download(held)])
    back, back_address = upload(np.zeros((rows, dim), np.float32))
    codes, codes_address = upload(found)
    device.decode(codes_address, rows, n_q, back_address, 0)
    same(f"latents of {shape}", [books.decode(found)], [download(back)])


def check_refusals(rng: np.random.Generator) -> None:
    books = _native.Codebooks(rng.standard_normal((2, 4, 3)).astype(np.float32))
    device = _cuda.DeviceCodebooks(books, 0)
    latents, address = upload(np.zeros((5, 3), np.float32))
    codes, codes_address = upload(np.full((2, 5), 4, np.uint16))
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
    del latents, codes


def main() -> None:
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        check(rng, shape)
    check_refusals(rng)
    print("equal")


if __name__ == "__main__":
    main()
