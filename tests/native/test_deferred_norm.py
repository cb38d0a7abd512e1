"""Group norm that is applied where a value is added gives what it gives where the value is made.

A second reader of the value, through zero weights, keeps its norm from being put off."""

from __future__ import annotations

import numpy as np
import pytest

from encodec_fast import _core

WIDTH, FRAMES = 16, 40


def codes_of(own_add: bool, second_reader: bool) -> np.ndarray:
    rng = np.random.default_rng(5)
    graph = _core.Graph(WIDTH)

    def conv(source: int, add: int, scale: float = 1.0) -> int:
        weight = (scale * rng.standard_normal((WIDTH, WIDTH))).astype(np.float32)
        return graph.conv(
            source,
            add,
            False,
            1,
            1,
            0,
            0,
            False,
            weight,
            np.zeros(WIDTH, np.float32),
            rng.uniform(0.5, 1.5, WIDTH).astype(np.float32) if scale else None,
            rng.standard_normal(WIDTH).astype(np.float32) if scale else None,
            1e-5 if scale else 0.0,
        )

    first = conv(0, -1)
    shortcut = conv(first, first if own_add else -1)
    result = conv(first, shortcut)
    if second_reader:
        conv(shortcut, result, scale=0.0)  # adds zeros
    graph.seal()
    books = np.random.default_rng(7).standard_normal((8, 1024, WIDTH)).astype(np.float32)
    audio = np.random.default_rng(6).standard_normal((WIDTH, FRAMES)).astype(np.float32)
    encoder = _core.Encoder(graph, _core.Codebooks(books), 1, False)
    return np.asarray(encoder.run([audio], [True], [1.0], 8)[0])


@pytest.mark.parametrize("own_add", [False, True])
def test_norm_where_it_is_added(own_add: bool) -> None:
    plain, read_twice = codes_of(own_add, False), codes_of(own_add, True)
    assert len(np.unique(plain[0])) > FRAMES / 4
    np.testing.assert_array_equal(plain, read_twice)
