"""The tests of the language model's coder (tests/native) on `cuda:0`, be it emulated or real: what
it computes, what it refuses, what damaged data does. A script: see agreement_on_device.py; options
are pytest's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from encodec_fast import _core, _cuda

NATIVE = Path(__file__).parents[1] / "native"


def device_coder(lm: Any, n_q: int, batch: int) -> Any:
    """_core.LmCoder's arguments."""
    return _cuda.LmCoder(_cuda.DeviceLanguageModel(lm, 0), n_q, batch)


def main() -> int:
    _core.LmCoder = device_coder  # type: ignore[misc, assignment]  # the tests name it there
    files = [str(NATIVE / f"test_{name}.py") for name in ("lm_coder", "language_model")]
    return pytest.main(["-q", "-p", "no:cacheprovider", *files, *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
