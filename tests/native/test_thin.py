"""Products of a few columns, which run over rows where there are 64 of them and over columns where
not: the same bits, however the rows are cut and spread over lanes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from encodec_fast import _core

Floats = npt.NDArray[np.float32]
FRAMES = 200
# Calls of fewer than 64 rows, then one just below, at and above.
CUTS = [0, 1, 3, 11, 50, 113, 177, FRAMES]


def thin_graph(rng: np.random.Generator, cin: int, cout: int, kernel: int, bf16: bool) -> Any:
    """A product with ELU on its input, twice with a sum, and an ELU of the result."""
    graph = _core.Graph(cin)

    def conv(source: int, add: int, elu: bool, size: int, taps: int) -> int:
        weight = rng.standard_normal((taps * size, cout)) / np.sqrt(taps * size)
        array: Any = weight.astype(np.float32)
        if bf16:
            array = (array.view(np.uint32) >> 16).astype(np.uint16)
        bias = rng.standard_normal(cout).astype(np.float32)
        return graph.conv(
            source, add, elu, taps, 1, taps - 1, 0, False, array, bias, None, None, 0.0
        )

    first = conv(0, -1, False, cin, 1)
    second = conv(0, first, True, cin, kernel)
    conv(second, second, True, cout, 1)
    return graph


def decoder(graph: Any, books: Floats, lanes: int) -> Any:
    return _core.Decoder(graph, _core.Codebooks(books), lanes, False)


@pytest.mark.parametrize(("cin", "cout"), [(4, 1), (8, 2), (12, 3), (16, 4), (33, 1)])
@pytest.mark.parametrize("kernel", [1, 7])
@pytest.mark.parametrize("bf16", [False, True])
def test_few_columns(cin: int, cout: int, kernel: int, bf16: bool) -> None:
    rng = np.random.default_rng(cin * kernel)
    graph = thin_graph(rng, cin, cout, kernel, bf16)
    books = rng.standard_normal((1, FRAMES, cin)).astype(np.float32)
    codes = [rng.integers(0, FRAMES, (1, FRAMES)).astype(np.uint16) for _ in range(3)]
    whole = [decoder(graph, books, 1).run([c], [True], [1.0])[0] for c in codes]
    assert whole[0].shape == (cout, FRAMES) and np.ptp(whole[0]) > 0.5

    chunked = decoder(graph, books, 1)
    parts = [
        chunked.run([np.ascontiguousarray(codes[0][:, a:b])], [b == FRAMES], [1.0])[0]
        for a, b in pairwise(CUTS)
    ]
    assert np.concatenate(parts, axis=1).tobytes() == whole[0].tobytes()

    lanes = decoder(graph, books, 3)  # 3 * 30 rows a call: no lane alone has 64
    cuts = [*range(0, FRAMES, 30), FRAMES]
    together = []
    for a, b in pairwise(cuts):
        block = [np.ascontiguousarray(c[:, a:b]) for c in codes]
        together.append(lanes.run(block, [b == FRAMES] * 3, [1.0] * 3))
    for lane, expected in enumerate(whole):
        found = np.concatenate([part[lane] for part in together], axis=1)
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (2, 2), (4, 3)])
def test_few_columns_of_an_encoder(channels: int, stride: int) -> None:
    """Windows that overlap in all but `stride` rows; the last codes tell single bits apart."""
    rng = np.random.default_rng(stride)
    kernel, dim, rows = 3 * stride, 3, 150
    graph = _core.Graph(channels)
    weight = rng.standard_normal((kernel * channels, dim)).astype(np.float32)
    bias = rng.standard_normal(dim).astype(np.float32)
    graph.conv(
        0, -1, False, kernel, stride, kernel - stride, 0, False, weight, bias, None, None, 0.0
    )
    entries = rng.standard_normal((20, 64, dim)) * 0.4 ** np.arange(20)[:, None, None]
    books = _core.Codebooks(entries.astype(np.float32))
    audio = rng.standard_normal((channels, rows * stride)).astype(np.float32)
    whole = _core.Encoder(graph, books, 1, False).run([audio], [True], [1.0], 20)[0]
    encoder = _core.Encoder(graph, books, 1, False)
    parts = []
    for a, b in pairwise([0, 2, 40, 101, rows]):
        block = np.ascontiguousarray(audio[:, a * stride : b * stride])
        parts.append(encoder.run([block], [b == rows], [1.0], 20)[0])
    assert np.array_equal(np.concatenate(parts, axis=1), whole)


def test_timings() -> None:
    """Names, and products counted; no figure of time."""
    rng = np.random.default_rng(0)
    graph = thin_graph(rng, 8, 2, 7, False)
    coder = decoder(graph, rng.standard_normal((2, 16, 8)).astype(np.float32), 2)
    codes = [np.zeros((2, n), np.uint16) for n in (70, 5)]
    assert coder.timings() == []
    coder.run(codes, [True, True], [1.0, 1.0])
    assert coder.timings() == []
    coder.profile(True)
    for _ in range(2):
        coder.run(codes, [True, True], [1.0, 1.0])
    names, seconds, macs = zip(*coder.timings(), strict=True)
    assert names == ("0 conv 8->2 k1 s1", "1 conv 8->2 k7 s1", "2 conv 2->2 k1 s1", "rvq")
    assert macs == (150 * 16, 150 * 112, 150 * 4, 0)
    assert all(0 <= one < 60 for one in seconds)
    coder.profile(False)
    assert coder.timings() == []
