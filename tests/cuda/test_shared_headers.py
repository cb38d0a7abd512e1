"""Functions of single elements that the CPU's kernels and CUDA's share, compiled for the host:
no emulation. csrc/kernels/position.h, cdf_width.h, csrc/entropy/range_coder.h."""

from __future__ import annotations

import shutil
import subprocess
from decimal import Decimal, getcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from signals import REPOSITORY

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    if shutil.which("c++") is None:
        pytest.skip("there is no c++")
    program = tmp_path_factory.mktemp("shared") / "headers"
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    defines = [f"-I{REPOSITORY / 'csrc'}", "-DEF_ISA=device", "-DEF_ONE_LANE"]
    sources = [HERE / "shared_headers.cpp", REPOSITORY / "csrc" / "entropy" / "range_coder.cpp"]
    subprocess.run(
        ["c++", *flags, *defines, *map(str, sources), "-o", str(program)],
        check=True,
    )
    done = subprocess.run([program], check=True, capture_output=True, text=True)
    return [line.split() for line in done.stdout.splitlines()]


def of(lines: list[list[str]], kind: str) -> list[list[str]]:
    found = [line[1:] for line in lines if line[0] == kind]
    assert found
    return found


def reduced(phase: float) -> float:
    """The phase modulo 2 pi, from 60 digits of pi."""
    getcontext().prec = 60
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
    turns = (Decimal(phase) / (2 * pi)).to_integral_value()
    return float(Decimal(phase) - turns * 2 * pi)


def test_positions(lines: list[list[str]]) -> None:
    """Cosine and sine of phases up to 2^32."""
    for phase, *found in of(lines, "turn"):
        angle = reduced(float.fromhex(phase))
        expected = (np.cos(angle), np.sin(angle))
        values = [float.fromhex(x) for x in found]
        np.testing.assert_allclose(values, expected, rtol=0, atol=2e-15)


def test_interval_widths(lines: list[list[str]]) -> None:
    """One product rounded to float32, to nearest, then truncated."""
    for symbols, p, width in of(lines, "width"):
        exact = Fraction(float.fromhex(p)) * (2**24 - 2 * int(symbols))
        # float64 holds the product of two float32 exactly, so this rounds once.
        assert int(width) == 1 + int(np.float32(float(exact)))
    assert of(lines, "refused") == [["5"]]


def test_range_writer_keeps_to_its_room(lines: list[list[str]]) -> None:
    """What bounds a stream's bytes on a device, where nothing can grow."""
    for symbols, used, wrong in of(lines, "coder"):
        assert int(wrong) == 0, (symbols, used, wrong)
        assert int(used) <= 4 * int(symbols) + 8
