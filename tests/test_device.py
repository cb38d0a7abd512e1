"""Where a codec may run, on machines that have nothing but a CPU too."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
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


def test_a_codec_has_its_own_device(tmp_path: Path) -> None:
    codec = ef.Codec.load("nano_24khz")
    source = tmp_path / "a.ecdc"
    source.write_bytes(codec.compress(np.zeros((1, 640), np.float32)))
    with pytest.raises(ValueError, match="device: a Codec has its own, expected none beside it"):
        ef.decompress_file(source, tmp_path / "a.wav", model=codec, device="cuda")
    assert not (tmp_path / "a.wav").exists()
