"""The coders of the native module alone: the rules in plain Python, damage, absurd arguments, and
equal intervals on every instruction set; also run under the sanitizers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import encodec_fast as ef
from encodec_fast import _core

Floats = npt.NDArray[np.float32]
TOTAL = 1 << 24
SIZES = (2, 3, 7, 8, 9, 127, 128, 129, 1000, 1024, 65536)


def distributions(rng: np.random.Generator, rows: int, n: int, sharpness: float) -> Floats:
    logits = sharpness * rng.standard_normal((rows, n))
    p = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float32)
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def starts_in_python(p: Floats) -> list[int]:
    """The rule of version 1, one scalar at a time."""
    factor = np.float32(TOTAL - 2 * len(p))
    starts = [0]
    for value in p:
        starts.append(starts[-1] + 1 + int(np.float32(value) * factor))
    return starts


class SlowRangeEncoder:
    """The range coder on integers of any size: no carry has to be propagated."""

    def __init__(self) -> None:
        self.low, self.range, self.shifts = 0, 2**64 - 1, 0

    def encode(self, start: int, width: int) -> None:
        unit = self.range >> 24
        self.low += unit * start
        self.range = unit * width
        if self.range < 2**32:
            self.low <<= 32
            self.range <<= 32
            self.shifts += 1

    def flush(self) -> bytes:
        for zeros in range(8, -1, -1):
            value = -(-self.low >> (8 * zeros)) << (8 * zeros)
            if value < self.low + self.range:
                return value.to_bytes(8 + 4 * self.shifts, "big")[: 8 - zeros + 4 * self.shifts]
        raise AssertionError


@pytest.mark.parametrize("n", SIZES)
def test_intervals_follow_the_rule(n: int) -> None:
    rng = np.random.default_rng(n)
    p = np.concatenate([distributions(rng, 2, n, s) for s in (0.0, 1.0, 4.0)])
    p[0, 0] = -0.0
    found = _core.cdf_starts(p)
    for row, starts in zip(p, found, strict=True):
        assert starts.tolist() == starts_in_python(row)


@pytest.mark.parametrize("n", SIZES)
def test_bytes_are_those_of_the_slow_coder(n: int) -> None:
    """Through all three ways in: probabilities, sums per symbol, sums for all."""
    rng = np.random.default_rng(100 + n)
    rows = 40 if n == 65536 else 300
    p = distributions(rng, rows, n, 3.0)
    symbols = rng.integers(0, n, rows).astype(np.uint16)
    symbols[:4] = 0, n - 1, n - 1, 0
    starts = _core.cdf_starts(p)
    slow, shared = SlowRangeEncoder(), SlowRangeEncoder()
    for t, symbol in enumerate(symbols.tolist()):
        row = starts[t].tolist()
        slow.encode(row[symbol], row[symbol + 1] - row[symbol])
        row = starts[0].tolist()
        shared.encode(row[symbol], row[symbol + 1] - row[symbol])
    encoder = _core.RangeEncoder()
    encoder.push_probabilities(symbols, p)
    data = encoder.flush()
    assert data == slow.flush()
    encoder.push_starts(symbols, starts)
    assert encoder.flush() == data
    encoder.push_starts(symbols, starts[:1])
    fixed = encoder.flush()
    assert fixed == shared.flush()
    decoder = _core.RangeDecoder(data)
    np.testing.assert_array_equal(decoder.pull_probabilities(p), symbols)
    assert decoder.complete
    decoder = _core.RangeDecoder(data)
    np.testing.assert_array_equal(decoder.pull_starts(starts, rows), symbols)
    decoder = _core.RangeDecoder(fixed)
    np.testing.assert_array_equal(decoder.pull_starts(starts[:1], rows), symbols)
    assert decoder.complete


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, TOTAL - 1), st.integers(1, TOTAL)), max_size=60))
def test_any_intervals_survive(intervals: list[tuple[int, int]]) -> None:
    """Of three symbols the middle one is coded: carries, renormalisation, and every end."""
    rows = []
    for start, width in intervals:
        begin = min(max(start, 1), TOTAL - 2)
        end = min(begin + width, TOTAL - 1)
        rows.append([0, begin, end, TOTAL])
    starts = np.array(rows, np.uint32).reshape(len(rows), 4)
    ones = np.ones(len(rows), np.uint16)
    encoder, slow = _core.RangeEncoder(), SlowRangeEncoder()
    encoder.push_starts(ones, starts)
    data = encoder.flush()
    for _, begin, end, _ in rows:
        slow.encode(begin, end - begin)
    assert data == slow.flush()
    decoder = _core.RangeDecoder(data)
    np.testing.assert_array_equal(decoder.pull_starts(starts, len(rows)), ones)
    assert decoder.complete


def test_a_carry_runs_through_many_bytes() -> None:
    """Close below a power of two for long, then above it: all bytes written turn over."""
    half = [
        0,
        TOTAL // 2 - 1,
        TOTAL // 2,
        TOTAL,
    ]  # the upper end of the lower half, again and again
    above = [0, TOTAL - 2, TOTAL - 1, TOTAL]
    starts = np.array([half] + [above] * 40 + [[0, 1, TOTAL - 1, TOTAL]], np.uint32)
    symbols = np.array([1] + [2] * 40 + [2], np.uint16)
    encoder, slow = _core.RangeEncoder(), SlowRangeEncoder()
    encoder.push_starts(symbols, starts)
    for row, symbol in zip(starts.tolist(), symbols.tolist(), strict=True):
        slow.encode(row[symbol], row[symbol + 1] - row[symbol])
    data = encoder.flush()
    assert data == slow.flush()
    np.testing.assert_array_equal(_core.RangeDecoder(data).pull_starts(starts, 42), symbols)


def test_the_bytes_are_no_more_than_needed() -> None:
    encoder = _core.RangeEncoder()
    assert encoder.flush() == b""
    starts = np.array([[0, TOTAL // 2, TOTAL]], np.uint32)
    for symbols, expected in (([0], b""), ([1], b"\x80"), ([1, 0, 1], b"\xa0")):
        encoder.push_starts(np.array(symbols, np.uint16), starts)
        assert encoder.flush() == expected
    # What was written before the end stays, zeros or not: a decoder may miss eight bytes at most.
    encoder.push_starts(np.zeros(200, np.uint16), starts)
    data = encoder.flush()
    assert data == bytes(24)
    decoder = _core.RangeDecoder(data)
    assert not decoder.pull_starts(starts, 200).any() and decoder.complete
    with pytest.raises(ValueError, match="damaged or truncated at symbol"):
        _core.RangeDecoder(b"").pull_starts(starts, 200)


def test_size_over_entropy() -> None:
    """Below 0.1 %, for distributions of a language model's sharpness."""
    rng = np.random.default_rng(7)
    p = distributions(rng, 20000, 1024, 2.0)
    chosen = p.cumsum(axis=1, dtype=np.float64) > rng.random((len(p), 1))
    symbols = chosen.argmax(axis=1).astype(np.uint16)
    encoder = _core.RangeEncoder()
    encoder.push_probabilities(symbols, p)
    size = len(encoder.flush())
    entropy = -np.log2(p[np.arange(len(p)), symbols], dtype=np.float64).sum() / 8
    assert size < 1.001 * entropy


def test_one_symbol_may_have_it_all() -> None:
    p = np.zeros((4, 1024), np.float32)
    p[:, 1023] = 1.0
    symbols = np.array([1023, 0, 1022, 1023], np.uint16)
    encoder = _core.RangeEncoder()
    encoder.push_probabilities(symbols, p)
    np.testing.assert_array_equal(
        _core.RangeDecoder(encoder.flush()).pull_probabilities(p), symbols
    )


def test_what_is_left_over_belongs_to_nobody() -> None:
    """All bits set lie behind the last interval; nothing of it is decoded as a symbol."""
    p = np.full((1, 1024), 1 / 2048, np.float32)
    assert _core.cdf_starts(p)[0, -1] < TOTAL
    for data in (b"\xff" * 8, b"\xff" * 200):
        with pytest.raises(ValueError, match="damaged or truncated at symbol 0"):
            _core.RangeDecoder(data).pull_probabilities(p)
        with pytest.raises(ValueError, match="damaged or truncated at symbol 0"):
            _core.RangeDecoder(data).pull_starts(_core.cdf_starts(p), 5)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(2, 300))
def test_no_data_harms_the_decoders(data: bytes, n: int) -> None:
    p = distributions(np.random.default_rng(n), 400, n, 4.0)
    starts, sums = _core.cdf_starts(p), _core.cdf_reference(p)
    range_decoder, arithmetic = _core.RangeDecoder(data), _core.ArithmeticDecoder(data)
    for pull in (
        lambda: range_decoder.pull_probabilities(p),
        lambda: _core.RangeDecoder(data).pull_starts(starts, 400),
        lambda: _core.RangeDecoder(data).pull_starts(starts[:1], 1 << 61),
        lambda: arithmetic.pull(sums, 400),
    ):
        try:
            found = pull()
        except ValueError as error:
            assert "damaged" in str(error)
        else:
            assert found.max(initial=0) < n


def test_static_tables() -> None:
    rng = np.random.default_rng(3)
    widths = np.maximum(distributions(rng, 8, 1024, 3.0) * (TOTAL - 1100), 1).astype(np.uint32)
    coder = _core.StaticCoder(widths)
    starts = np.concatenate(
        [np.zeros((8, 1), np.uint32), widths.cumsum(axis=1, dtype=np.uint32)], 1
    )
    for n_q in (1, 3, 8):
        codes = rng.integers(0, 1024, (n_q, 200)).astype(np.uint16)
        data = coder.encode(codes)
        np.testing.assert_array_equal(coder.decode(data, n_q, 200), codes)
        encoder = _core.RangeEncoder()
        encoder.push_starts(codes.T.ravel().copy(), np.tile(starts[:n_q], (200, 1)))
        assert encoder.flush() == data
        with pytest.raises(ValueError, match="not as long"):
            coder.decode(data + bytes(9), n_q, 200)
        with pytest.raises(ValueError, match="damaged"):
            coder.decode(data[:20], n_q, 200)
    assert coder.encode(np.zeros((2, 0), np.uint16)) == b""
    assert coder.decode(b"", 2, 0).shape == (2, 0)
    with pytest.raises(ValueError, match="damaged"):
        _core.StaticCoder(np.array([[TOTAL - 2, 1, 1]], np.uint32)).decode(b"\xff" * 40, 1, 1 << 60)


def test_the_reference_gives_up_where_an_interval_stays_on_a_boundary() -> None:
    """Symbol 1 is the middle of the range, of the least width: neither half is ever left."""
    middle = np.array([[TOTAL // 2 - 1, TOTAL // 2 + 1, TOTAL]], np.int64)
    encoder = _core.ArithmeticEncoder()
    encoder.push(np.uint16([1]), middle)
    with pytest.raises(OverflowError, match="narrower"):
        encoder.push(np.uint16([1] * 4), middle)
    with pytest.raises(ValueError, match="damaged"):
        _core.ArithmeticDecoder(b"\x01" + bytes(40)).pull(middle, 9)


PROGRAM = """
import hashlib, sys
import numpy as np
from encodec_fast import _core
out = hashlib.sha256()
with np.load(sys.argv[1]) as cases:
    for name in sorted(cases):
        p = cases[name]
        rng = np.random.default_rng(p.shape[1])
        symbols = rng.integers(0, p.shape[1], len(p)).astype(np.uint16)
        encoder = _core.RangeEncoder()
        encoder.push_probabilities(symbols, p)
        data = encoder.flush()
        found = _core.RangeDecoder(data).pull_probabilities(p)
        assert np.array_equal(found, symbols)
        noise = np.frombuffer(rng.bytes(4 * len(p)), np.uint8).tobytes()
        try:
            heard = _core.RangeDecoder(noise).pull_probabilities(p).tobytes()
        except ValueError as error:
            heard = str(error).encode()
        for part in (data, heard, _core.cdf_reference(p).tobytes()):
            out.update(part)
print(out.hexdigest())
"""


def test_instruction_sets_agree(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    cases = {f"{n}-{s}": distributions(rng, 60, n, s) for n in SIZES[:-1] for s in (0.0, 2.0, 9.0)}
    np.savez(tmp_path / "cases.npz", **cases)
    found = set()
    for isa in ef.cpu_info()["supported"]:
        result = subprocess.run(
            [sys.executable, "-c", PROGRAM, tmp_path / "cases.npz"],
            env={**os.environ, "ENCODEC_FAST_ISA": isa},
            cwd=tmp_path,  # in a source tree its sources without the native core would come first
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(result.stdout)
    assert len(found) == 1
