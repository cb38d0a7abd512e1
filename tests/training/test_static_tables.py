"""The rule of interval widths, and the tables made with it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodec_fast.training.static_tables import (
    TOTAL,
    balanced,
    count_codes,
    interval_widths,
    perplexity,
    table_widths,
    width_bits,
)


def test_widths_by_hand() -> None:
    widths = interval_widths(np.array([0.5, 0.25, 0.25, 0.0], np.float32))
    room = TOTAL - 8
    assert widths.tolist() == [1 + room // 2, 1 + room // 4, 1 + room // 4, 1]


@given(
    st.lists(st.integers(0, 1 << 40), min_size=2, max_size=300),
    st.floats(1e-3, 1e3),
)
def test_every_code_has_room_and_all_fit(counts: list[int], smoothing: float) -> None:
    widths = table_widths(np.array([counts, counts[::-1]]), smoothing)
    assert widths.shape == (2, len(counts)) and widths.dtype == np.int64
    assert widths.min() >= 1
    assert widths.sum(axis=1).max() <= TOTAL
    assert widths[0].tolist() == widths[1][::-1].tolist()
    order = np.argsort(counts)
    assert (np.diff(widths[0][order]) >= 0).all()


def test_cost_of_a_table_is_the_entropy_of_what_it_was_made_of() -> None:
    random = np.random.default_rng(1)
    codes = random.geometric(0.05, (1, 200_000)).clip(max=256).astype(np.uint16) - 1
    counts = count_codes(codes, 256)
    spent = (counts * width_bits(table_widths(counts))).sum() / codes.size
    assert spent == pytest.approx(np.log2(perplexity(counts)[0]), abs=2e-3)


def test_kinds_of_sound_weigh_the_same() -> None:
    counts = balanced([np.array([[90, 0]]), np.array([[0, 10]])])
    assert counts.tolist() == [[50, 50]]
    widths = interval_widths(np.array([[0.25, 0.75]], np.float32))
    assert balanced([100 * widths, 3 * widths]).tolist() == (103 * widths).tolist()


def test_counts_and_perplexity() -> None:
    codes = np.array([[0, 1, 2, 3], [2, 2, 2, 2]], np.uint16)
    counts = count_codes(codes, 4)
    assert counts.tolist() == [[1, 1, 1, 1], [0, 0, 4, 0]]
    assert perplexity(counts).tolist() == [4, 1]


@pytest.mark.parametrize(
    ("p", "message"),
    [
        ([0.5], "2 to 65536"),
        ([0.5, np.nan], "0 to 1"),
        ([-0.1, 0.5], "0 to 1"),
        ([1.0, 1.0], "more than 1"),
    ],
)
def test_bad_probabilities_are_refused(p: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        interval_widths(np.array(p, np.float32))


def test_bad_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="counts"):
        table_widths(np.array([[1, -1]]))
    with pytest.raises(ValueError, match="smoothing"):
        table_widths(np.array([[1, 1]]), 0)
