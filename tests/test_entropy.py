"""The coders on numpy arrays: round trips, the reference's bytes, and clear errors."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import encodec_fast as ef

Floats = npt.NDArray[np.float32]


def distributions(rng: np.random.Generator, rows: int, n: int, sharpness: float) -> Floats:
    logits = sharpness * rng.standard_normal((rows, n))
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


Coder = tuple[Callable[[], Any], Callable[[bytes], Any], int]
CODERS: dict[str, Coder] = {
    "range": (ef.RangeEncoder, ef.RangeDecoder, 1),
    "arithmetic": (ef.ArithmeticEncoder, ef.ArithmeticDecoder, 0),
}


@pytest.fixture(params=CODERS.values(), ids=CODERS)
def coder(request: pytest.FixtureRequest) -> Coder:
    return request.param


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(CODERS)),
    n=st.integers(2, 1100),
    rows=st.integers(0, 60),
    sharpness=st.sampled_from([0.0, 1.0, 5.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trips(name: str, n: int, rows: int, sharpness: float, seed: int) -> None:
    """In every form of the model, and in pieces."""
    encoder_of, decoder_of, version = CODERS[name]
    rng = np.random.default_rng(seed)
    p = distributions(rng, rows + 1, n, sharpness)
    cdf = ef.cdf_from_probabilities(p, version)
    # The last one of the reference's may have no room: it is tested below.
    symbols = rng.integers(0, n if version == 1 else n - 1, rows)
    encoder = encoder_of()
    cut = int(rng.integers(0, rows + 1))
    encoder.push(symbols[:cut], p[:cut])
    encoder.push(symbols[cut:], cdf[cut:rows])
    encoder.push(symbols, p[rows])
    encoder.push(symbols, cdf[rows])
    data = encoder.flush()
    assert encoder.flush() == b""
    decoder = decoder_of(data)
    for model, expected in ((cdf[:cut], symbols[:cut]), (p[cut:rows], symbols[cut:])):
        found = decoder.pull(model)
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, expected)
    for model in (cdf[rows], p[rows]):
        np.testing.assert_array_equal(decoder.pull(model, rows), symbols)
    if isinstance(decoder, ef.ArithmeticDecoder):
        assert decoder.position == len(data)
    else:
        assert decoder.complete


def test_symbol_by_symbol_is_the_same(coder: Coder) -> None:
    """As with a model whose next distribution depends on the symbols so far."""
    rng = np.random.default_rng(1)
    p = distributions(rng, 50, 64, 2.0)
    symbols = rng.integers(0, 64, 50)
    whole, single = coder[0](), coder[0]()
    whole.push(symbols, p)
    for symbol, row in zip(symbols, p, strict=True):
        single.push(symbol, row)
    data = whole.flush()
    assert single.flush() == data
    decoder = coder[1](bytearray(data))
    assert [int(decoder.pull(row, 1)[0]) for row in p] == symbols.tolist()


def test_cdfs_keep_leading_dimensions() -> None:
    p = distributions(np.random.default_rng(2), 6, 10, 1.0)
    for version, columns in ((1, 11), (0, 10)):
        flat = ef.cdf_from_probabilities(p, version)
        assert flat.shape == (6, columns)
        shaped = ef.cdf_from_probabilities(p.reshape(2, 3, 10), version)
        np.testing.assert_array_equal(shaped, flat.reshape(2, 3, columns))
        np.testing.assert_array_equal(ef.cdf_from_probabilities(p[4], version), flat[4])
        assert ef.cdf_from_probabilities(p[:0], version).shape == (0, columns)
        np.testing.assert_array_equal(
            ef.cdf_from_probabilities(p[:, ::-1], version)[:, -1], flat[:, -1]
        )


# --- against the reference ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference() -> Any:
    pytest.importorskip("torch")
    from peers import import_encodec

    import_encodec()
    import encodec.quantization.ac as module

    return module


def their_cdfs(reference: Any, p: Floats) -> list[Any]:
    import torch

    return [
        reference.build_stable_quantized_cdf(torch.from_numpy(row), 24, check=False) for row in p
    ]


@pytest.mark.parametrize("n", [2, 7, 8, 100, 1024, 4096])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 4.0, 15.0, 30.0])
def test_reference_cdfs_are_equal(reference: Any, n: int, sharpness: float) -> None:
    """The peaked ones among them end beyond 2^24 now and then, and equally so."""
    import torch

    logits = sharpness * torch.randn(120, n, generator=torch.Generator().manual_seed(n))
    p = logits.softmax(dim=1).numpy()
    expected = np.stack([cdf.numpy() for cdf in their_cdfs(reference, p)])
    np.testing.assert_array_equal(ef.cdf_from_probabilities(p, version=0), expected)


@pytest.mark.parametrize("sharpness", [0.0, 2.0, 8.0])
def test_the_reference_writes_and_reads_the_same_bytes(reference: Any, sharpness: float) -> None:
    rng = np.random.default_rng(5)
    p = distributions(rng, 800, 1024, sharpness)
    likely = (p.cumsum(axis=1, dtype=np.float64) > rng.random((800, 1))).argmax(axis=1)
    symbols = np.where(rng.random(800) < 0.8, likely, rng.integers(0, 1023, 800))
    cdfs = their_cdfs(reference, p)
    for count in (0, 1, 2, 3, 800):
        file = io.BytesIO()
        theirs = reference.ArithmeticCoder(file)
        for symbol, cdf in zip(symbols[:count].tolist(), cdfs, strict=False):
            theirs.push(symbol, cdf)
        theirs.flush()
        ours = ef.ArithmeticEncoder()
        ours.push(symbols[:count], p[:count])
        data = ours.flush()
        assert data == file.getvalue()
    decoder = reference.ArithmeticDecoder(io.BytesIO(data))
    assert [decoder.pull(cdf) for cdf in cdfs] == symbols.tolist()


@pytest.mark.parametrize("gap", [False, True])
def test_the_reference_finds_the_same_in_noise(reference: Any, gap: bool) -> None:
    """Symbol for symbol up to the place where no symbol fits or the data ends."""
    import torch

    rng = np.random.default_rng(6)
    sums = ef.cdf_from_probabilities(distributions(rng, 200, 300, 3.0), version=0)
    if gap:
        sums = sums[:, :-1] * 2 // 3
    endings = set()
    for size in [0, 1, 2, 3, 4, 8, 40] * 8:
        noise = rng.bytes(size)
        theirs, ours = reference.ArithmeticDecoder(io.BytesIO(noise)), ef.ArithmeticDecoder(noise)
        for row in sums:
            try:
                expected = theirs.pull(torch.from_numpy(row))
            except RuntimeError:
                ending = "damaged"
                break
            if expected is None:
                ending = "truncated"
                break
            assert ours.pull(row, 1)[0] == expected
        with pytest.raises((ValueError, EOFError), match=rf"{ending}( or truncated at| \()"):
            ours.pull(row, 1)
        endings.add(ending)
    assert endings == ({"damaged", "truncated"} if gap else {"truncated"})


def test_what_ends_beyond_the_range_is_refused(reference: Any) -> None:
    """The reference's rule rounds up; its last symbol then has no room (spec 4.1)."""
    import torch

    logits = 20 * torch.randn(2000, 1024, generator=torch.Generator().manual_seed(1))
    p = logits.softmax(dim=1).numpy()
    cdfs = ef.cdf_from_probabilities(p, version=0)
    beyond = np.flatnonzero(cdfs[:, -1] > 1 << 24)
    assert len(beyond) > 0
    for row in beyond[:20]:
        encoder = ef.ArithmeticEncoder()
        encoder.push([5], p[row])
        with pytest.raises(ValueError, match=r"symbol 1023 has the interval .*within 0\.\.2\^24"):
            encoder.push([7, 1023], p[row])
        encoder.push([0, 1021, 1022], p[row])  # a call that is refused encodes nothing
        data = encoder.flush()
        assert ef.ArithmeticDecoder(data).pull(p[row], 4).tolist() == [5, 0, 1021, 1022]


# --- what is refused ------------------------------------------------------------------------------

P = np.full((3, 4), 0.25, np.float32)
REFUSALS: dict[str, tuple[str, Callable[[], object]]] = {
    "version": ("version: expected 0 or 1, found 2", lambda: ef.cdf_from_probabilities(P, 2)),
    "number": (r"found \[\]", lambda: ef.cdf_from_probabilities(np.float32(0.5))),
    "empty": (r"found \[3, 0\]", lambda: ef.cdf_from_probabilities(P[:, :0])),
    "float64": ("float32, found float64", lambda: ef.cdf_from_probabilities([0.5, 0.5])),
    "outside": ("distribution 0", lambda: ef.cdf_from_probabilities(2 * P)),
    "outside, 0": ("distribution 0", lambda: ef.cdf_from_probabilities(5 * P, 0)),
    "single": ("found 1", lambda: ef.cdf_from_probabilities(P[:, :1])),
    "model": ("found int32", lambda: ef.RangeEncoder().push([0], np.arange(5, dtype=np.int32))),
    "other": (
        "uint32 sums",
        lambda: ef.RangeEncoder().push([0], ef.cdf_from_probabilities(P[0], 0)),
    ),
    "shape": (r"found shape \[1, 3, 4\]", lambda: ef.RangeEncoder().push([0], P[None])),
    "symbols": ("3, found 2", lambda: ef.RangeEncoder().push([0, 1], P)),
    "negative": (r"found -1\.\.1", lambda: ef.RangeEncoder().push([-1, 1, 0], P)),
    "too large": ("found 4", lambda: ef.RangeEncoder().push([0, 1, 4], P)),
    "huge": ("symbols", lambda: ef.RangeEncoder().push([0, 1, 1 << 40], P)),
    "fractions": ("found float64", lambda: ef.RangeEncoder().push([0.5, 1, 2], P)),
    "two-dimensional": ("symbols", lambda: ef.RangeEncoder().push([[0, 1, 2]], P)),
    "data": ("data: expected bytes, found str", lambda: ef.RangeDecoder("text")),  # type: ignore[arg-type]
    "no count": ("count", lambda: ef.RangeDecoder(b"abc").pull(P[0])),
    "count": ("count", lambda: ef.RangeDecoder(b"abc").pull(P[0], -1)),
    "no integer": ("count", lambda: ef.RangeDecoder(b"abc").pull(P[0], 1.5)),  # type: ignore[arg-type]
    "other count": ("3, found 2", lambda: ef.RangeDecoder(b"abc").pull(P, 2)),
    "absurd count": ("2^62", lambda: ef.RangeDecoder(b"abc").pull(P[0], 1 << 80)),
    "endless": ("damaged or truncated", lambda: ef.RangeDecoder(b"abc").pull(P[0], 1 << 60)),
}


@pytest.mark.parametrize(("match", "call"), REFUSALS.values(), ids=REFUSALS)
def test_clear_errors(match: str, call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=match.replace("^", r"\^")):
        call()


def test_truncated_data_of_the_reference() -> None:
    encoder = ef.ArithmeticEncoder()
    encoder.push([1] * 100, P[0])
    data = encoder.flush()
    with pytest.raises(EOFError, match=r"truncated \(\d+ of 100 symbols\)"):
        ef.ArithmeticDecoder(data[:-3]).pull(P[0], 100)


def test_flushed_denormals_change_nothing() -> None:
    torch = pytest.importorskip("torch")
    bits = np.array([[0x3F800000, 1, 1, 1]], np.uint32)  # 1 and the smallest above 0
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush denormals")
    try:
        found = ef.cdf_from_probabilities(bits.view(np.float32))
        bits[0, 1] = 0x80000001
        with pytest.raises(ValueError, match="distribution 0"):
            ef.RangeEncoder().push([0], bits.view(np.float32))
    finally:
        torch.set_flush_denormal(False)
    assert found.tolist() == [[0, *((1 << 24) - 8 + i for i in (1, 2, 3, 4))]]
