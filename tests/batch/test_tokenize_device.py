"""tokenize and the command line with a device: bad names leave nothing behind, and the device is
no part of what a run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from programs import tiny_program

import encodec_fast as ef
from encodec_fast import _native
from encodec_fast.batch import cluster
from encodec_fast.batch.settings import Settings
from encodec_fast.cli import main


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a model, and one with a recording."""
    tiny_program(tmp_path, "reflect", 1)
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", np.zeros(4000), 8000)
    return tmp_path


def model_of(place: Path) -> str:
    return str(next(place.glob("*.safetensors")))


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "cuda:-1", "CUDA", "", "cuda:99999"])
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_bad_names_are_errors_before_anything_is_written(
    place: Path, device: str, engine: str
) -> None:
    out = place / "out"
    with pytest.raises(ValueError, match="device"):
        ef.tokenize(place / "audio", out, model_of(place), None, device=device, engine=engine)
    assert not out.exists()


def test_a_worker_has_one_gpu(place: Path) -> None:
    with pytest.raises(ValueError, match=r"device: engine ray expects 'cpu' or 'cuda', found"):
        ef.tokenize(place / "audio", place / "out", model_of(place), device="cuda:1", engine="ray")
    settings = Settings(model="m", threads=4, device="cuda")
    assert cluster._workers({"CPU": 64.0, "GPU": 3.0}, settings) == 3
    assert cluster._workers({"CPU": 8.0, "GPU": 3.0}, settings) == 2
    assert cluster._workers({"CPU": 64.0}, Settings(model="m", threads=4)) == 16
    with pytest.raises(OSError, match="no machine of the Ray cluster has a GPU"):
        cluster._workers({"CPU": 64.0}, settings)


def test_a_codec_has_its_own(place: Path) -> None:
    codec = ef.Codec.load(model_of(place))
    with pytest.raises(ValueError, match="device: a Codec has its own"):
        ef.tokenize(place / "audio", place / "out", codec, None, device="cuda")
    assert not (place / "out").exists()


def test_the_device_is_no_part_of_a_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run is recognised, whatever device is asked for; the manifest has none."""
    ef.tokenize(place / "audio", place / "out", model_of(place), None)
    manifest = json.loads((place / "out" / "manifest.json").read_bytes())
    assert "device" not in manifest["settings"] and "device" not in manifest["identity"]
    load = ef.Codec.load
    asked = []

    def loaded(model: Any, *arguments: Any, device: str = "cpu", **options: Any) -> ef.Codec:
        asked.append(device)
        return load(model, *arguments, **options)

    monkeypatch.setattr(ef.Codec, "load", staticmethod(loaded))
    report = ef.tokenize(place / "audio", place / "out", model_of(place), None, device="cuda:2")
    assert report.resumed == 1 and asked == ["cuda:2"]


def test_the_command_line(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    audio, model = str(place / "audio" / "a.wav"), ["-m", model_of(place)]
    bandwidth = ["-b", str(ef.Codec.load(model_of(place)).bandwidths[-1])]
    coded = str(place / "a.ecdc")
    assert main(["compress", audio, coded, *model, *bandwidth]) == 0
    commands = [
        ["tokenize", str(place / "audio"), str(place / "out"), *model, *bandwidth],
        ["compress", audio, str(place / "b.ecdc"), *model, *bandwidth],
        ["decompress", coded, str(place / "b.wav"), *model],
        ["roundtrip", audio, str(place / "c.wav"), *model, *bandwidth],
    ]

    def none(device: str) -> Any:
        raise OSError("device: no GPU here")

    for device, message in (("tpu", "expected 'cpu', 'cuda'"), ("cuda", "device: no GPU here")):
        if device == "cuda":
            monkeypatch.setattr(_native, "open_cuda", none)
        for command in commands:
            assert main([*command, "--device", device]) == 1, command
            assert message in capsys.readouterr().err
            assert not Path(command[2]).exists()
    for command in commands:
        assert main([*command, "--device", "cpu"]) == 0, command
        assert Path(command[2]).exists()
