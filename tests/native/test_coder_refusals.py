"""What the coders of the native module refuse: values that are no distribution, absurd arguments.

Also run under the sanitizers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from encodec_fast import _core

Floats = npt.NDArray[np.float32]
TOTAL = 1 << 24


INVALID = {
    "not a number": lambda p: p.__setitem__(5, np.nan),
    "infinite": lambda p: p.__setitem__(5, np.inf),
    "negative": lambda p: p.__setitem__(5, -0.25),
    "barely negative": lambda p: p.view(np.uint32).__setitem__(5, 0x80000001),
    "above one": lambda p: (
        p.fill(0.0),
        p.__setitem__(5, np.nextafter(np.float32(1), np.float32(2))),
    ),
    "minus infinity": lambda p: p.__setitem__(5, -np.inf),
    "sum": lambda p: p.__imul__(np.float32(1.01)),
    "all ones": lambda p: p.fill(1.0),
    "huge": lambda p: p.fill(3e38),
}


@pytest.mark.parametrize("n", [6, 100, 128, 300, 1024, 65536])
@pytest.mark.parametrize("spoil", INVALID.values(), ids=INVALID)
def test_what_is_no_distribution_is_refused(n: int, spoil: Callable[[Floats], Any]) -> None:
    p = np.full((3, n), 1 / n, np.float32)
    data = _core.RangeEncoder()
    data.push_probabilities(np.zeros(3, np.uint16), p)
    spoil(p[1])
    encoder = _core.RangeEncoder()
    with pytest.raises(ValueError, match="distribution 1 "):
        encoder.push_probabilities(np.array([0, n - 1, 0], np.uint16), p)
    assert encoder.flush() == b""
    with pytest.raises(ValueError, match="distribution 1 "):
        _core.RangeDecoder(data.flush()).pull_probabilities(p)
    with pytest.raises(ValueError, match="distribution 1 "):
        _core.cdf_starts(p)


WIDTHS = np.array([[1, 2, 1], [TOTAL - 2, 1, 1]], np.uint32)


REFUSALS: list[tuple[str, Callable[[], object]]] = [
    ("codebook 0", lambda: _core.StaticCoder(np.zeros((1, 4), np.uint32))),
    ("codebook 1", lambda: _core.StaticCoder(np.array([[1, 1], [TOTAL, 1]], np.uint32))),
    ("codebook 0", lambda: _core.StaticCoder(np.full((1, 65536), 2**32 - 1, np.uint32))),
    ("codebook 0", lambda: _core.StaticCoder(np.ones((1, 1), np.uint32))),
    ("codebook 0", lambda: _core.StaticCoder(np.ones((1, 0), np.uint32))),
    ("codebook 0", lambda: _core.StaticCoder(np.ones((1, 65537), np.uint32))),
    ("codes", lambda: _core.StaticCoder(WIDTHS).encode(np.zeros((3, 1), np.uint16))),
    ("codes", lambda: _core.StaticCoder(WIDTHS).encode(np.zeros((0, 1), np.uint16))),
    ("found 3", lambda: _core.StaticCoder(WIDTHS).encode(np.full((1, 1), 3, np.uint16))),
    ("n_q", lambda: _core.StaticCoder(WIDTHS).decode(b"", 0, 1)),
    ("n_q", lambda: _core.StaticCoder(WIDTHS).decode(b"", 3, 1)),
    ("frames", lambda: _core.StaticCoder(WIDTHS).decode(b"", 1, -1)),
    ("found 1", lambda: _core.cdf_starts(np.ones((1, 1), np.float32))),
    ("found 65537", lambda: _core.cdf_starts(np.zeros((1, 65537), np.float32))),
    ("found 0", lambda: _core.cdf_reference(np.zeros((5, 0), np.float32))),
    ("distribution 0", lambda: _core.cdf_reference(np.full((1, 2), 1.5, np.float32))),
    ("distribution 0", lambda: _core.cdf_reference(np.full((1, 2), np.nan, np.float32))),
    ("one per distribution", lambda: push(np.zeros(2), np.full((1, 2), 0.5, np.float32))),
    ("found 2", lambda: push([2], np.full((1, 2), 0.5, np.float32))),
    ("one per distribution", lambda: push(np.zeros(3), np.array([[0, 1, 2]] * 2, np.uint32))),
    ("found 2", lambda: push([2], np.array([[0, 1, 2]], np.uint32))),
    ("cdf", lambda: push([0], np.array([[1, 2, 3]], np.uint32))),
    ("cdf", lambda: push([0], np.array([[0, 0, 3]], np.uint32))),
    ("cdf", lambda: push([0], np.array([[0, 3, 2]], np.uint32))),
    ("cdf", lambda: push([0], np.array([[0, 3, TOTAL + 1]], np.uint32))),
    ("found 0", lambda: push([0], np.array([[0]], np.uint32))),
    ("found -1", lambda: push([0], np.zeros((1, 0), np.uint32))),
    ("cdf", lambda: _core.ArithmeticEncoder().push(u16([0]), np.array([[0, 5]], np.int64))),
    ("cdf", lambda: _core.ArithmeticEncoder().push(u16([0]), np.array([[5, 4]], np.int64))),
    ("cdf", lambda: _core.ArithmeticEncoder().push(u16([0]), np.array([[5, 2**62]], np.int64))),
    ("cdf", lambda: _core.ArithmeticEncoder().push(u16([0]), np.zeros((1, 0), np.int64))),
    ("found 9", lambda: _core.ArithmeticEncoder().push(u16([9]), np.array([[5, 9]], np.int64))),
    ("cdf", lambda: _core.ArithmeticDecoder(b"ab").pull(np.array([[-5, 9]], np.int64), 1)),
    ("count", lambda: _core.ArithmeticDecoder(b"ab").pull(np.array([[5, 9]], np.int64), -1)),
    ("count", lambda: _core.ArithmeticDecoder(b"ab").pull(np.array([[5, 9]] * 2, np.int64), 1)),
    ("count", lambda: _core.RangeDecoder(b"ab").pull_starts(np.array([[0, 1, 2]], np.uint32), -1)),
    ("count", lambda: _core.RangeDecoder(b"").pull_starts(np.array([[0, 1, 2]] * 2, np.uint32), 1)),
]


def u16(values: Any) -> npt.NDArray[np.uint16]:
    return np.asarray(values).astype(np.uint16)


def push(symbols: Any, model: npt.NDArray[Any]) -> None:
    encoder = _core.RangeEncoder()
    if model.dtype == np.float32:
        encoder.push_probabilities(u16(symbols), model)
    else:
        encoder.push_starts(u16(symbols), model)


@pytest.mark.parametrize(("match", "call"), REFUSALS, ids=range(len(REFUSALS)))
def test_absurd_arguments_are_refused(match: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=match):
        call()
