"""The codebook search gives the same codes on every instruction set, whatever its first pass does:
near-ties, equal entries, entries and rows of any size, rows that hold what is not finite."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

import encodec_fast as ef

PROGRAM = """
import sys
import numpy as np
from encodec_fast import _core
with np.load(sys.argv[1]) as case:
    books, rows = _core.Codebooks(case["entries"]), case["rows"]
np.save(sys.argv[2], books.encode(rows, books.n_q))
# By itself: another number of rows runs through other tiles.
np.save(sys.argv[3], np.concatenate([books.encode(row[None], books.n_q) for row in rows], axis=1))
"""

Array = npt.NDArray[np.float32]
RNG = np.random.default_rng(20261125)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def powers_of_ten(low: float, high: float, *shape: int) -> Array:
    return (10.0 ** RNG.uniform(low, high, shape)).astype(np.float32)


def ties(entries: Array) -> Array:
    """Rows halfway between two entries of the first codebook, where rounding decides."""
    return (entries[0, 0:20] + entries[0, 20:40]) / 2


def nearly_equal(entries: Array) -> Array:
    """Codebooks whose entries differ by a few units in the last place, or not at all."""
    return (entries[:, :1] + np.float32(1e-7) * RNG.integers(0, 3, entries.shape)).astype("f4")


def ordinary() -> tuple[Array, Array]:
    entries = normal(3, 1024, 128)
    return entries, np.concatenate([normal(15, 128), ties(entries), entries[0, :3]])


def of_one_mould() -> tuple[Array, Array]:
    entries = nearly_equal(normal(2, 256, 64))
    return entries, np.concatenate([normal(9, 64), entries[0, :5]])


def of_all_sizes() -> tuple[Array, Array]:
    """Entries of heavy-tailed length; rows and codebooks from far too small to far too large."""
    entries = normal(2, 300, 32) * powers_of_ten(-2, 2, 2, 300, 1)
    rows = normal(40, 32) * powers_of_ten(-25, 25, 40, 1)
    return entries, np.concatenate([rows, normal(12, 32)])


def too_small() -> tuple[Array, Array]:
    return normal(2, 64, 16) * powers_of_ten(-30, -5, 2, 64, 1), normal(12, 16) * np.float32(1e-20)


def zeros() -> tuple[Array, Array]:
    entries = normal(2, 512, 16)
    entries[:, ::3] = 0
    return entries, np.zeros((7, 16), np.float32)


def not_finite() -> tuple[Array, Array]:
    rows = normal(20, 128)
    rows[2, 5], rows[9], rows[13, 127] = np.nan, np.inf, -np.inf
    return normal(2, 128, 128), rows


def entries_not_finite() -> tuple[Array, Array]:
    """Program files hold none; a codebook of the core may."""
    entries = normal(2, 1024, 16)
    entries[:, 1008:] = np.nan
    return entries, normal(12, 16)


def of_odd_sizes() -> tuple[Array, Array]:
    return normal(2, 37, 10), normal(11, 10)


CASES = [
    ordinary,
    of_one_mould,
    of_all_sizes,
    too_small,
    zeros,
    not_finite,
    entries_not_finite,
    of_odd_sizes,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_every_instruction_set_finds_the_same_entries(case, tmp_path) -> None:
    entries, rows = case()
    np.savez(tmp_path / "case.npz", entries=entries, rows=rows)
    found = {}
    for isa in ef.cpu_info()["supported"]:
        files = [tmp_path / "case.npz", tmp_path / f"{isa}.npy", tmp_path / f"{isa}-single.npy"]
        environment = {**os.environ, "ENCODEC_FAST_ISA": isa}
        # From elsewhere: a source tree without the native core would come before the installed one.
        command = [sys.executable, "-c", PROGRAM, *files]
        subprocess.run(command, env=environment, cwd=tmp_path, check=True)
        found[isa], single = np.load(files[1]), np.load(files[2])
        np.testing.assert_array_equal(found[isa], single)
    for codes in found.values():
        np.testing.assert_array_equal(codes, found["portable"])


def test_the_cases_vary() -> None:
    """Equal codes would prove nothing if they were all one code."""
    entries, rows = ordinary()
    from encodec_fast import _core

    assert len(np.unique(_core.Codebooks(entries).encode(rows, 3)[0])) > 15
