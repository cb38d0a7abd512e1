"""Crops from files: position, resampling, channels, and files that are not usable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from encodec_fast.audio import convert_audio
from encodec_fast.training import reading
from encodec_fast.training.reading import read_crop, seconds_of
from encodec_fast.training.sources import Recording


def written(path: Path, samples: np.ndarray, rate: int, subtype: str | None = None) -> Recording:
    soundfile.write(path, samples, rate, subtype=subtype)
    return Recording(str(path), str(path), "sound")


def noise(frames: int, channels: int) -> np.ndarray:
    random = np.random.default_rng(frames)
    return random.uniform(-0.5, 0.5, (frames, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("stored", [1, 2, 3])
def test_a_crop_is_part_of_the_recording(tmp_path: Path, channels: int, stored: int) -> None:
    x = noise(8000, stored)
    recording = written(tmp_path / "x.wav", x, 8000, "FLOAT")
    mono = np.repeat(x.mean(axis=1)[None], channels, axis=0)
    expected = x.T if stored == channels else mono
    for place in (0.0, 0.4, 0.999999):
        crop = read_crop(recording, 8000, channels, 1000, place)
        start = int(place * 7001)
        assert crop.second == start / 8000
        assert np.allclose(crop.wave, expected[:, start : start + 1000], atol=1e-6)
        assert crop.peak == np.abs(x).max()


@pytest.mark.parametrize(("rate", "wanted"), [(16000, 24000), (48000, 24000), (44100, 48000)])
def test_a_resampled_crop_is_that_of_the_resampled_recording(
    tmp_path: Path, rate: int, wanted: int
) -> None:
    x = noise(rate, 2)
    recording = written(tmp_path / "x.wav", x, rate, "FLOAT")
    whole = convert_audio(x.T, rate, wanted, 2)
    step = rate // np.gcd(rate, wanted)
    for before, start in ((0, 0), (256, 256 + 50 * step)):  # what is read begins on both grids
        place = (start + 0.5) / (rate - rate // 8 + 1)
        crop = read_crop(recording, wanted, 2, wanted // 8, place)
        assert crop.second == pytest.approx(start / rate)
        at = (start - before) * wanted // rate + round(before * wanted / rate)
        # Noise up to half the rate: what the resampler's ends leave of it is well below 1 %.
        assert np.abs(crop.wave - whole[:, at : at + wanted // 8]).max() < 5e-3
        assert np.abs(crop.wave - whole[:, at + 1 : at + 1 + wanted // 8]).max() > 0.1


def test_only_what_a_crop_needs_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = written(tmp_path / "x.flac", noise(60 * 8000, 1), 8000)
    decoded = []
    read = reading._read
    monkeypatch.setattr(
        reading, "_read", lambda f, start, n: (decoded.append(n), read(f, start, n))[1]
    )
    read_crop(recording._replace(peak=0.5), 8000, 1, 4000, 0.5)
    assert decoded == [4000 + 2 * 256]
    decoded.clear()
    read_crop(recording, 8000, 1, 4000, 0.5)
    assert sum(decoded) == 4000 + 2 * 256 + 8 * 8000  # and excerpts for the level, once
    decoded.clear()
    read_crop(recording, 8000, 1, 4000, 0.1)
    assert decoded == [4000 + 2 * 256]


def bad_recordings(folder: Path) -> dict[str, str]:
    """Files that are not usable for crops of half a second, with the reasons for that."""
    nan, good = noise(8000, 1), noise(8000, 1)
    nan[2000] = np.nan
    infinite = noise(8000, 1)
    infinite[6000] = -np.inf
    soundfile.write(folder / "nan.wav", nan, 8000, subtype="FLOAT")
    soundfile.write(folder / "inf.wav", infinite, 8000, subtype="FLOAT")
    soundfile.write(folder / "silent.wav", np.zeros(8000), 8000)
    soundfile.write(folder / "short.wav", good[:3000], 8000)
    soundfile.write(folder / "none.wav", good[:0], 8000)
    soundfile.write(folder / "cut.flac", good, 8000)
    content = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(content[: len(content) // 2])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.ogg").write_text("no audio at all")
    return {
        "nan.wav": "is nan",
        "inf.wav": "is -inf",
        "silent.wav": "silent",
        "short.wav": "too short: expected at least 0.5 s, found 0.375 s",
        "none.wav": "found no audio",
        "cut.flac": "cut.flac|truncated",
        "empty.wav": "empty file",
        "text.ogg": "Format not recognised",
        "missing.wav": "No such file",
    }


def test_unusable_recordings_say_why(tmp_path: Path) -> None:
    for name, message in bad_recordings(tmp_path).items():
        recording = Recording(name, str(tmp_path / name), "sound")
        place = {"inf.wav": 0.9, "cut.flac": 0.99}.get(name, 0.4)
        with pytest.raises((OSError, ValueError), match=message):
            read_crop(recording, 8000, 1, 4000, place)


def test_stated_lengths_are_trusted_but_for_files_that_are_not_there(tmp_path: Path) -> None:
    recording = written(tmp_path / "x.wav", noise(8000, 1), 8000)._replace(seconds=3.0)
    assert seconds_of(recording, True) == 3.0
    assert seconds_of(recording, False) == 1.0
    with pytest.raises(FileNotFoundError):
        seconds_of(recording._replace(path=str(tmp_path / "y.wav")), True)
    (tmp_path / "x.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="empty file"):
        seconds_of(recording, True)
