"""PESQ, STOI and ViSQOL: sensible values, failures that are no errors, and a stand-in program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from signals import synthetic_clip

from encodec_fast.evaluation.listeners import Visqol, pesq_mos, stoi_score

RATE = 24000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Harmonics in syllables: enough for the measures to find speech in it."""
    time = np.arange(3 * RATE) / RATE
    pitch = np.cumsum(120 + 20 * np.sin(2 * np.pi * 0.7 * time)) / RATE
    voice = sum(np.sin(2 * np.pi * k * pitch) / k for k in range(1, 30))
    wave = 0.1 * voice * np.clip(np.sin(2 * np.pi * 3 * time), 0.01, None)
    return wave[None].astype(np.float32)


@pytest.mark.parametrize(("measure", "package"), [(pesq_mos, "pesq"), (stoi_score, "pystoi")])
def test_speech_measures(measure, package: str, speech: np.ndarray) -> None:
    pytest.importorskip(package)
    noise = np.random.default_rng(0).standard_normal(speech.shape).astype(np.float32)
    clean = measure(speech, speech, RATE)
    scores = [measure(speech, speech + gain * noise, RATE) for gain in (0.0003, 0.003, 0.03)]
    assert clean == pytest.approx(4.64 if package == "pesq" else 1, abs=0.01)
    assert clean > scores[0] > scores[1] > scores[2]
    # Channels apart, those without sound left out.
    both = measure(np.repeat(speech, 2, 0), np.concatenate([speech, speech + 0.003 * noise]), RATE)
    assert both == pytest.approx((clean + scores[1]) / 2, abs=1e-6)
    pair = np.concatenate([speech, 0 * speech])
    assert measure(pair, pair, RATE) == pytest.approx(clean, abs=1e-6)
    for length in (1, 50, 1000):
        assert measure(speech[:, -length:], speech[:, -length:], RATE) is None
    assert measure(0 * speech, speech, RATE) is None


def stand_in(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_visqol_gets_what_it_needs(tmp_path: Path) -> None:
    program = stand_in(
        tmp_path / "visqol",
        f'echo "$@" > {tmp_path}/args; cp "$2" {tmp_path}/x.wav; cp "$4" {tmp_path}/y.wav\n'
        'echo "some talk"; echo "MOS-LQO:\t\t4.12"',
    )
    (tmp_path / "model.txt").touch()
    x = 3 * synthetic_clip(0, RATE, 2)
    listener = Visqol.at(program, tmp_path / "model.txt")
    assert listener.mos(x, 0.1 * x, RATE) == 4.12
    arguments = (tmp_path / "args").read_text().split()
    assert arguments[::2] == [
        "--reference_file",
        "--degraded_file",
        "--similarity_to_quality_model",
    ]
    assert arguments[5] == str(tmp_path / "model.txt")
    import soundfile

    about = soundfile.info(tmp_path / "x.wav")
    assert (about.samplerate, about.channels, about.subtype) == (48000, 1, "PCM_16")
    assert about.frames == 2 * x.shape[1]
    peaks = [np.abs(soundfile.read(tmp_path / name)[0]).max() for name in ("x.wav", "y.wav")]
    assert peaks[0] == pytest.approx(0.99, abs=1e-4) and peaks[1] < 0.3
    assert not any(Path(name).exists() for name in arguments[1:4:2])


@pytest.mark.parametrize("text", ["exit 0", "echo MOS-LQO: 3.0; exit 1", "echo MOS-LQO: nan"])
def test_visqol_that_finds_no_value(tmp_path: Path, text: str) -> None:
    listener = Visqol.at(stand_in(tmp_path / "visqol", text), None)
    x = synthetic_clip(0, RATE, 1)
    assert listener.mos(x, x, RATE) is None


def test_visqol_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"visqol: no file at .*none"):
        Visqol.at(tmp_path / "none", None)
    program = stand_in(tmp_path / "visqol", "exit 0")
    with pytest.raises(FileNotFoundError, match="visqol model: no file"):
        Visqol.at(program, tmp_path / "none")
    program.chmod(0o644)
    x = synthetic_clip(0, RATE, 1)
    with pytest.raises(PermissionError):
        Visqol.at(program, None).mos(x, x, RATE)
