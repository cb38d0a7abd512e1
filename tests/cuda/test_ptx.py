"""What nvcc makes of the kernels: every operation rounded once, to nearest, denormals kept."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from signals import REPOSITORY

CUDA = REPOSITORY / "csrc" / "cuda"


def nvcc() -> str:
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        pytest.skip("there is no nvcc")
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in CUDA.glob("*.cu")))
def test_arithmetic_is_exact(name: str, tmp_path: Path) -> None:
    """Also where the compiler may fuse, as it may by default: the names of the operations forbid
    it."""
    output = tmp_path / "kernels.ptx"
    flags = ["-std=c++17", "-O3", f"-I{REPOSITORY / 'csrc'}", "-DEF_ISA=device", "-DEF_ONE_LANE"]
    subprocess.run(
        [nvcc(), *flags, "-arch=sm_90", "-fmad=true", "-ptx", str(CUDA / name), "-o", str(output)],
        check=True,
    )
    text = output.read_text()
    operations = set(
        re.findall(
            r"\b((?:add|sub|mul|fma|mad|div|rcp|sqrt|rsqrt|ex2|lg2|sin|cos|tanh|min|max)\.[a-z0-9.]*f(?:32|64))\b",
            text,
        )
    )
    inexact = {op for op in operations if not re.fullmatch(r"\w+\.rn\.f(32|64)", op)}
    assert not inexact, f"{name}: {inexact}"
    if name == "norm.cu":  # which sums in double, without any
        assert "fma.rn.f64" not in operations
    if name in ("gemm.cu", "lstm.cu", "rvq.cu"):
        assert "fma.rn.f32" in operations
    if name == "gemm.cu":
        # Of a tile's results, too: nvcc makes four stores of an assignment.
        assert text.count("st.global.v4.f32") >= 12 * 8
