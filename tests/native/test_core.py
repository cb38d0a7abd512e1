"""The native module alone, against plain numpy; also run under the sanitizers."""

from __future__ import annotations

import math
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from encodec_fast import _core

Floats = npt.NDArray[np.float32]


def fma32(a: float, b: float, c: float) -> np.float32:
    """A fused multiply-add of float32 values: the product is exact in float64, and the sum is
    rounded to odd by hand before the one rounding to float32."""
    product = float(a) * float(b)
    total = product + float(c)
    # TwoSum: what the float64 addition lost decides a tie, so push the last bit its way.
    bb = total - product
    error = (product - (total - bb)) + (float(c) - bb)
    if error != 0.0 and math.isfinite(total):
        bits = np.float64(total).view(np.int64)
        if not bits & 1:
            away = (error > 0) == (total > 0)
            total = float(np.int64(bits + (1 if away else -1)).view(np.float64))
    return np.float32(total)


def chain(start: float, a: Floats, b: Floats) -> np.float32:
    value = np.float32(start)
    for x, y in zip(a, b, strict=True):
        value = fma32(x, y, value)
    return value


def conv_encoder(weight: Floats, bias: Floats, kernel: int, books: Floats) -> _core.Encoder:
    graph = _core.Graph(weight.shape[0] // kernel)
    graph.conv(0, -1, False, kernel, 1, kernel - 1, 0, False, weight, bias, None, None, 0.0)
    return _core.Encoder(graph, _core.Codebooks(books), 1, False)


def conv_decoder(weight: Floats, bias: Floats, books: Floats) -> _core.Decoder:
    graph = _core.Graph(weight.shape[0])
    graph.conv(0, -1, False, 1, 1, 0, 0, False, weight, bias, None, None, 0.0)
    return _core.Decoder(graph, _core.Codebooks(books), 1, False)


@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 13])
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 64, 80, 130])
def test_product_is_one_chain(rows: int, columns: int) -> None:
    """Bit for bit, for every tail of the tiles: a pointwise convolution of codebook entries."""
    rng = np.random.default_rng(rows * 1000 + columns)
    depth = 9
    weight = rng.standard_normal((depth, columns)).astype(np.float32)
    bias = rng.standard_normal(columns).astype(np.float32)
    books = rng.standard_normal((1, max(rows, 2), depth)).astype(np.float32)
    codes = np.arange(rows, dtype=np.uint16)[None]
    out = conv_decoder(weight, bias, books).run([codes], [True], [1.0])[0]
    assert out.shape == (columns, rows)
    for t in range(rows):
        for c in range(columns):
            assert out[c, t] == chain(bias[c], books[0, t], weight[:, c])


def reference_search(latent: Floats, books: Floats) -> npt.NDArray[np.uint16]:
    codes = []
    residual = latent.copy()
    for book in books:
        half = [-0.5 * sum(float(v) ** 2 for v in entry) for entry in book]
        scores = [chain(np.float32(h), residual, e) for h, e in zip(half, book, strict=True)]
        codes.append(int(np.argmax(scores)))
        residual = residual - book[codes[-1]]
    return np.array(codes, np.uint16)


@pytest.mark.parametrize("entries", [2, 16, 33])
def test_search_matches_the_definition(entries: int) -> None:
    rng = np.random.default_rng(entries)
    dim, frames = 5, 14
    books = rng.standard_normal((3, entries, dim)).astype(np.float32)
    audio = rng.standard_normal((dim, frames)).astype(np.float32)
    encoder = conv_encoder(np.eye(dim, dtype=np.float32), np.zeros(dim, np.float32), 1, books)
    codes = encoder.run([audio], [True], [1.0], 3)[0]
    for t in range(frames):
        assert np.array_equal(codes[:, t], reference_search(audio[:, t], books))


def test_ties_go_to_the_lowest_index() -> None:
    books = np.zeros((1, 40, 4), np.float32)
    books[0, 3:] = 1.0  # entries 3 to 39 are the same
    encoder = conv_encoder(np.eye(4, dtype=np.float32), np.zeros(4, np.float32), 1, books)
    assert encoder.run([np.ones((4, 7), np.float32)], [True], [1.0], 1)[0].tolist() == [[3] * 7]


def test_overflowing_input_still_gives_valid_codes() -> None:
    books = np.random.default_rng(0).standard_normal((2, 20, 4)).astype(np.float32)
    weight = np.full((4, 4), 1e38, np.float32)
    encoder = conv_encoder(weight, np.zeros(4, np.float32), 1, books)
    audio = np.array([[3e38, -3e38, 1.0]] * 4, np.float32)
    assert encoder.run([audio], [True], [1.0], 2)[0].max() < 20


def elu_of(x: Floats) -> Floats:
    """ELU through a graph: codes pick the values, an identity convolution applies it on the way."""
    graph = _core.Graph(1)
    one = np.ones((1, 1), np.float32)
    graph.conv(0, -1, True, 1, 1, 0, 0, False, one, np.zeros(1, np.float32), None, None, 0.0)
    decoder = _core.Decoder(graph, _core.Codebooks(x.reshape(1, -1, 1)), 1, False)
    codes = np.arange(x.size, dtype=np.uint16)[None]
    return decoder.run([codes], [True], [1.0])[0][0]


def test_elu_accuracy() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [-np.logspace(-38, 2, 20000), rng.uniform(-3, 3, 20000), [0.0, -0.0, -1e38, 1e38]]
    ).astype(np.float32)
    exact = np.where(x > 0, x, np.expm1(np.minimum(x, 0).astype(np.float64)))
    error = np.abs(elu_of(x) - exact) / np.spacing(np.abs(exact).astype(np.float32))
    assert error.max() < 2.0


def lstm_decoder(arrays: tuple[Floats, Floats, Floats], books: Floats, lanes: int) -> Any:
    graph = _core.Graph(books.shape[2])
    graph.lstm(0, -1, False, *arrays)
    return _core.Decoder(graph, _core.Codebooks(books), lanes, False)


def test_lstm_against_float64() -> None:
    rng = np.random.default_rng(5)
    width, hidden, frames = 3, 20, 40
    w = rng.standard_normal((width, 4 * hidden)).astype(np.float32)
    r = (rng.standard_normal((hidden, 4 * hidden)) / 3).astype(np.float32)
    b = rng.standard_normal(4 * hidden).astype(np.float32)
    books = (3 * rng.standard_normal((1, frames, width))).astype(np.float32)
    codes = np.arange(frames, dtype=np.uint16)[None]
    out = lstm_decoder((w, r, b), books, 1).run([codes], [True], [1.0])[0]
    h, c = np.zeros(hidden), np.zeros(hidden)
    for t in range(frames):
        i, f, g, o = np.split(b + books[0, t] @ w.astype(float) + h @ r.astype(float), 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        np.testing.assert_allclose(out[:, t], h, atol=2e-6)


def test_lanes_of_different_lengths_are_independent() -> None:
    rng = np.random.default_rng(6)
    arrays = (
        rng.standard_normal((3, 16)).astype(np.float32),
        rng.standard_normal((4, 16)).astype(np.float32),
        rng.standard_normal(16).astype(np.float32),
    )
    books = rng.standard_normal((1, 50, 3)).astype(np.float32)
    codes = [rng.integers(0, 50, (1, n)).astype(np.uint16) for n in (30, 0, 7, 31)]
    alone = [lstm_decoder(arrays, books, 1).run([c], [True], [1.0])[0] for c in codes]
    together = lstm_decoder(arrays, books, 4).run(codes, [True] * 4, [1.0] * 4)
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a, b)


def test_graph_refuses_bad_operations() -> None:
    graph = _core.Graph(2)
    one = np.ones((2, 3), np.float32)
    bias = np.zeros(3, np.float32)

    def conv(**change: Any) -> int:
        arguments: dict[str, Any] = {
            **{"input": 0, "add": -1, "elu": False, "kernel": 1, "stride": 1, "pad_left": 0},
            **{"pad_right": 0, "reflect": False, "weight": one, "bias": bias},
            **{"norm_scale": None, "norm_offset": None, "eps": 0.0},
        }
        return graph.conv(**{**arguments, **change})

    for change in (
        {"input": 1},
        {"input": -1},
        {"add": 0},
        {"kernel": 0},
        {"kernel": 2},
        {"stride": 2},
        {"pad_left": 1},
        {"pad_left": -1, "pad_right": 1},
        {"bias": np.zeros(2, np.float32)},
        {"norm_scale": bias},
    ):
        with pytest.raises(ValueError):
            conv(**change)
    assert conv() == 1
    with pytest.raises(ValueError):
        _core.Graph(0)
    with pytest.raises(ValueError):
        _core.Codebooks(np.zeros((1, 1, 4), np.float32))
    with pytest.raises(ValueError, match="codebooks: expected dimension 3, found 5"):
        _core.Encoder(graph, _core.Codebooks(np.zeros((1, 4, 5), np.float32)), 1, False)


def test_a_graph_in_use_cannot_change() -> None:
    graph = _core.Graph(1)
    with pytest.raises(ValueError, match="no operations"):
        graph.seal()
    one, zero = np.ones((1, 1), np.float32), np.zeros(1, np.float32)

    def conv(source: int) -> int:
        return graph.conv(source, -1, False, 1, 1, 0, 0, False, one, zero, None, None, 0.0)

    conv(0)
    conv(0)
    with pytest.raises(ValueError, match="nothing reads value 1"):
        graph.seal()
    graph.conv(2, 1, False, 1, 1, 0, 0, False, one, zero, None, None, 0.0)
    _core.Encoder(graph, _core.Codebooks(np.zeros((1, 4, 1), np.float32)), 1, False)
    with pytest.raises(ValueError, match="in use and cannot be changed"):
        conv(3)


def test_absurd_operations_are_refused() -> None:
    graph = _core.Graph(1)
    nothing = np.zeros((2, 0), np.float32)
    with pytest.raises(ValueError):
        graph.conv_transpose(0, False, 1 << 62, 0, nothing, nothing[0], None, None, 0.0)
    first, second = np.zeros((2, 2048), np.float32), np.zeros((4, 8192), np.float32)
    graph.conv_transpose(0, False, 1024, 0, first, first[0, :2], None, None, 0.0)
    with pytest.raises(ValueError, match="too many values per input row"):
        graph.conv_transpose(1, False, 1024, 0, second, first[0, :8], None, None, 0.0)


def test_blocks_are_checked() -> None:
    books = np.zeros((2, 4, 1), np.float32)
    graph = _core.Graph(1)
    weight = np.ones((4, 1), np.float32)
    graph.conv(0, -1, False, 4, 2, 2, 0, True, weight, np.zeros(1, np.float32), None, None, 0.0)
    assert (graph.down, graph.start_rows, graph.causal) == (2, 4, True)
    encoder = _core.Encoder(graph, _core.Codebooks(books), 1, False)
    good = np.zeros((1, 4), np.float32)
    for blocks, last, scales, n_q in (
        ([good, good], [False], [1.0], 1),
        ([good], [False, True], [1.0], 1),
        ([good], [False], [1.0], 0),
        ([good], [False], [1.0], 3),
        ([np.zeros((2, 4), np.float32)], [False], [1.0], 1),
        ([np.zeros((1, 5), np.float32)], [False], [1.0], 1),
        ([np.zeros((1, 2), np.float32)], [False], [1.0], 1),
    ):
        with pytest.raises(ValueError):
            encoder.run(blocks, last, scales, n_q)
    assert encoder.run([good], [False], [1.0], 1)[0].shape == (1, 2)
    assert encoder.run([np.zeros((1, 3), np.float32)], [True], [1.0], 1)[0].shape == (1, 2)
    with pytest.raises(ValueError):
        _core.Encoder(graph, _core.Codebooks(books), 0, False)
    decoder = conv_decoder(np.ones((1, 1), np.float32), np.zeros(1, np.float32), books)
    with pytest.raises(ValueError, match="below 4, found 4"):
        decoder.run([np.full((1, 2), 4, np.uint16)], [True], [1.0])


def test_one_thread_at_a_time() -> None:
    """A stream used by two threads at once raises instead of corrupting its state."""
    rng = np.random.default_rng(0)
    books = rng.standard_normal((8, 1024, 64)).astype(np.float32)
    weight = rng.standard_normal((64, 64)).astype(np.float32)
    encoder = conv_encoder(weight, np.zeros(64, np.float32), 1, books)
    audio = rng.standard_normal((64, 2000)).astype(np.float32)
    started = threading.Event()

    def work() -> None:
        started.set()
        encoder.run([audio], [True], [1.0], 8)

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    refused = False
    while thread.is_alive() and not refused:
        try:
            encoder.reset()
        except ValueError:
            refused = True
    thread.join()
    assert refused


def pack(values: list[int], bits: int) -> bytes:
    number = sum(value << (bits * i) for i, value in enumerate(values))
    return number.to_bytes((len(values) * bits + 7) // 8, "little")


@pytest.mark.parametrize("bits", [1, 5, 8, 10, 11, 16])
def test_bit_packing(bits: int) -> None:
    rng = np.random.default_rng(bits)
    values = rng.integers(0, 1 << bits, 1001).astype(np.uint16)
    packer, unpacker = _core.BitPacker(bits), _core.BitUnpacker(bits)
    cuts = [0, 1, 1, 17, 500, 1001]
    data = b"".join(packer.push(values[a:b]) for a, b in pairwise(cuts))
    data += packer.flush()
    assert data == pack(values.tolist(), bits)
    found = np.concatenate([unpacker.push(data[:5]), unpacker.push(b""), unpacker.push(data[5:])])
    assert np.array_equal(found[:1001], values)
    assert packer.flush() == b""


def test_bit_packing_known_bytes_and_bad_values() -> None:
    packer = _core.BitPacker(10)
    with pytest.raises(ValueError, match="1024 does not fit into 10 bits"):
        packer.push(np.array([1, 1024], np.uint16))
    assert packer.push(np.array([1, 1023, 512], np.uint16)) + packer.flush() == bytes(
        [0x01, 0xFC, 0x0F, 0x20]
    )
    for bits in (0, 17, -1):
        with pytest.raises(ValueError, match=r"bits: expected 1\.\.16"):
            _core.BitPacker(bits)


def test_segment_scale() -> None:
    rng = np.random.default_rng(1)
    audio = rng.standard_normal((2, 48001)).astype(np.float32)
    exact = np.sqrt(np.mean(audio.astype(np.float64).mean(axis=0) ** 2))
    assert abs(_core.segment_scale(audio) / exact - 1) < 1e-6
    assert _core.segment_scale(np.stack([audio[0], -audio[0]])) == np.float32(1e-8)
    with pytest.raises(ValueError):
        _core.segment_scale(np.zeros((2, 0), np.float32))
