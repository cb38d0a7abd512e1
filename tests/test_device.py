"""Where a codec may run, on machines that have nothing but a CPU too."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import encodec_fast as ef
from encodec_fast import _native


@pytest.mark.parametrize(
    "device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:12345", "CUDA", 0, None]
)
def test_other_names_are_refused(device: Any) -> None:
    with pytest.raises(ValueError, match=r"device: expected 'cpu', 'cuda' or 'cuda:N', found"):
        ef.Codec.load("nano_24khz", device=device)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("none"), "this build of encodec_fast has no CUDA"),
        (ImportError("libfoo.so: no such file"), "cannot be loaded: libfoo.so: no such file"),
    ],
)
def test_a_module_that_is_not_there_says_why(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, message: str
) -> None:
    def missing(name: str) -> Any:
        assert name == "encodec_fast._cuda"
        raise error

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(OSError, match=message):
        ef.Codec.load("nano_24khz", device="cuda")
    assert not _native.cuda_available()
