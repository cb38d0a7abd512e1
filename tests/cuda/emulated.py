"""Builds `_cuda` for the emulated device (tests/cuda/emulation), and runs code on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest
from signals import REPOSITORY

import encodec_fast
from encodec_fast import _core

HERE = Path(__file__).parent


def can_build() -> bool:
    """Whether what a build needs is there."""
    return shutil.which("cmake") is not None and shutil.which("c++") is not None


@lru_cache
def package(folder: Path) -> Path:
    """A folder with a copy of the package whose `_cuda` is the emulated one; skips the test where
    it cannot be built."""
    given = os.environ.get("ENCODEC_FAST_EMULATED")
    if given:
        return Path(given)
    try:
        import nanobind  # noqa: F401  (the build finds it by itself)
    except ImportError:
        pytest.skip("building the emulated device needs nanobind")
    if not can_build():
        pytest.skip("building the emulated device needs cmake and a compiler")
    build = folder / "build"
    options = ["-DENCODEC_FAST_CUDA=EMULATED", f"-DPython_EXECUTABLE={sys.executable}"]
    subprocess.run(
        ["cmake", "-S", str(REPOSITORY), "-B", str(build), *options],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    target = ["--target", "_cuda", "-j", str(os.cpu_count() or 1)]
    subprocess.run(["cmake", "--build", str(build), *target], check=True, stdout=subprocess.DEVNULL)
    source = Path(encodec_fast.__file__).parent
    copy = folder / "encodec_fast"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "_cuda*.so"))
    # An editable install keeps the core elsewhere.
    for module in (*build.glob("_cuda*.so"), Path(_core.__file__)):
        shutil.copy(module, copy)
    return folder


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of this folder on the emulated device, in a process of its own."""
    installed = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    path = os.pathsep.join([str(folder), str(REPOSITORY / "tests"), str(HERE), *installed])
    return subprocess.run(
        # -S: what an editable install leaves for start-up would put its package first.
        [sys.executable, "-S", *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        cwd=folder,  # not the checkout, whose package would come first
        capture_output=True,
        text=True,
        check=False,
    )
