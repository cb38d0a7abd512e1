"""Opus and low-passed originals: aligned, of the right bitrate and band, and clear failures."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from signals import synthetic_clip

from encodec_fast.evaluation.anchors import OpusCoder, lowpass, payload_bytes

RATE = 24000
needs_opus = pytest.mark.skipif(
    not (shutil.which("opusenc") and shutil.which("opusdec")), reason="needs opus-tools"
)


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def delay(x: np.ndarray, y: np.ndarray) -> float:
    """Samples by which y lags x: the peak of their correlation, refined by a parabola."""
    size = 2 * len(x)
    product = np.fft.irfft(np.fft.rfft(y, size) * np.fft.rfft(x, size).conj())
    peak = int(product.argmax())
    before, at, after = product[peak - 1], product[peak], product[(peak + 1) % size]
    lag = peak + (before - after) / (2 * (before - 2 * at + after))
    return lag if lag < size / 2 else lag - size


@needs_opus
@pytest.mark.parametrize(("sample_rate", "channels"), [(24000, 1), (48000, 2), (44100, 2)])
def test_opus_is_aligned_and_of_its_bitrate(sample_rate: int, channels: int) -> None:
    coder = OpusCoder.find()
    assert coder is not None and "opus" in coder.version
    x = synthetic_clip(3, sample_rate, channels)
    bitrates = []
    for kbps in (6.0, 24.0):
        y, bits = coder.round_trip(x, sample_rate, kbps)
        assert y.shape == x.shape and y.dtype == np.float32
        bitrates.append(bits / x.shape[1] * sample_rate / 1000)
    # Of variable bitrate: hard material takes more.
    assert 3 < bitrates[0] < 9 and 18 < bitrates[1] < 60
    for a, b in zip(x, y, strict=True):
        assert abs(delay(a, b)) < 1


@needs_opus
def test_bytes_of_the_container_are_not_counted(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", synthetic_clip(1, 48000, 1).T, 48000)
    names = [str(tmp_path / "a.wav"), str(tmp_path / "a.opus")]
    subprocess.run(["opusenc", "--quiet", "--hard-cbr", "--bitrate", "32", *names], check=True)
    data = (tmp_path / "a.opus").read_bytes()
    # 20 ms of 32 kbps are 80 bytes; 3 s and the encoder's look-ahead of 6.5 ms make 151 packets.
    assert payload_bytes(data) == 151 * 80
    with pytest.raises(ValueError, match="page"):
        payload_bytes(data[:-100] + b"x")


def test_packets_over_several_segments_and_pages() -> None:
    def page(*sizes: int) -> bytes:
        head = struct.pack("<4sBBqIIIB", b"OggS", 0, 0, 0, 1, 0, 0, len(sizes))
        return head + bytes(sizes) + bytes(sum(sizes))

    data = page(19) + page(255, 255, 10) + page(255, 0, 100, 255) + page(45, 7)
    assert payload_bytes(data) == 255 + 100 + 255 + 45 + 7
    with pytest.raises(ValueError, match="byte 0"):
        payload_bytes(b"RIFF" + bytes(40))


def test_ffmpeg_takes_the_place_of_opus_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A program that copies its input, the third argument from the front, to its output, the last.
    script(
        tmp_path / "ffmpeg",
        'case "$*" in *-encoders*) echo " A..... libopus";; *-version*) echo "ffmpeg 9";;\n'
        '*) for last; do :; done; [ "$3" = -nostdin ] && cp "$5" "$last";; esac',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(shutil, "which", lambda name: {"ffmpeg": str(tmp_path / name)}.get(name))
    coder = OpusCoder.find()
    assert coder is not None and coder.version == "ffmpeg 9"
    x = synthetic_clip(2, 48000, 2)
    with pytest.raises(ValueError, match="Ogg file: no page"):  # it is still a WAV file
        coder.round_trip(x, 48000, 6.0)
    script(tmp_path / "ffmpeg", "echo no libopus here")
    assert OpusCoder.find() is not None  # the name is found
    script(tmp_path / "ffmpeg", "echo nothing")
    assert OpusCoder.find() is None


def test_a_program_that_fails(tmp_path: Path) -> None:
    script(tmp_path / "enc", "echo first >&2; echo disk is full >&2; exit 3")
    coder = OpusCoder(str(tmp_path / "enc"), "opusdec", "fake")
    with pytest.raises(OSError, match="enc: exit status 3: disk is full"):
        coder.round_trip(synthetic_clip(2, 24000, 1), 24000, 6.0)


@pytest.mark.parametrize("cutoff", [3500, 7000])
@pytest.mark.parametrize("sample_rate", [24000, 48000])
def test_lowpass(cutoff: int, sample_rate: int) -> None:
    time = np.arange(sample_rate) / sample_rate
    inner = slice(sample_rate // 10, -sample_rate // 10)
    for factor, gain in ((0.3, 1), (1.0, 1), (8 / 7, 0), (1.4, 0)):
        x = np.sin(2 * np.pi * cutoff * factor * time + 1).astype(np.float32)[None]
        y = lowpass(x, sample_rate, cutoff)
        assert y.shape == x.shape and y.dtype == np.float32
        # Equal sample by sample: neither ripple nor delay.
        assert np.abs(y - gain * x)[:, inner].max() < (2e-3 if gain else 5e-4)


def test_lowpass_of_a_recording_shorter_than_the_filter() -> None:
    x = np.ones((2, 5), np.float32)
    assert lowpass(x, RATE, 3500).shape == (2, 5)
