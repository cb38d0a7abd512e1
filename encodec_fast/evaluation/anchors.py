"""What models are compared with: Opus at several bitrates, and low-passed originals.

Opus comes from opus-tools or from ffmpeg with libopus, whichever is installed.
"""

from __future__ import annotations

import math
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from encodec_fast._native import Audio

OPUS_KBPS = (6.0, 12.0, 24.0)
# The anchors of MUSHRA (ITU-R BS.1534), Hz: passed up to here, gone half a kilohertz (one) above.
LOWPASS_HZ = (3500, 7000)
_TRANSITION = 1 / 7  # of the cutoff
_ATTENUATION = 70.0  # dB
_OPUS_RATE = 48_000
_SECONDS = 600.0  # for one run of a program
_PAGE = struct.Struct("<4sBBqIIIB")  # of Ogg (RFC 3533), before the table of segments
_HEADERS = 2  # packets of an Opus stream before audio (RFC 7845): its head and its tags


@dataclass(frozen=True)
class OpusCoder:
    """An Opus encoder and decoder: opusenc and opusdec, or ffmpeg for both. `version` names it."""

    encoder: str
    decoder: str
    version: str

    @staticmethod
    def find() -> OpusCoder | None:
        """What is installed, opus-tools first; None without any."""
        encoder, decoder = shutil.which("opusenc"), shutil.which("opusdec")
        if encoder and decoder:
            return OpusCoder(encoder, decoder, _first_line(_run([encoder, "--version"])))
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg and "libopus" in _run([ffmpeg, "-hide_banner", "-encoders"]):
            return OpusCoder(ffmpeg, ffmpeg, _first_line(_run([ffmpeg, "-version"])))
        return None

    def round_trip(self, wave: Audio, sample_rate: int, kbps: float) -> tuple[Audio, int]:
        """Codes float32 [1 or 2 channels, samples] at a target of `kbps`, with its defaults.

        Returns the decoded recording, aligned and of the same shape and rate, and the bits of its
        packets: the container is not counted. Coded at 48 kHz, Opus' own rate, both resamplings are
        ours (linear phase). Raises OSError where a program fails.
        """
        with tempfile.TemporaryDirectory() as folder:
            source, coded, decoded = (
                str(Path(folder) / name) for name in ("in.wav", "coded.opus", "out.wav")
            )
            samples = soxr.resample(wave.T, sample_rate, _OPUS_RATE)
            soundfile.write(source, samples, _OPUS_RATE, subtype="FLOAT")
            if self.encoder == self.decoder:
                quiet = [self.encoder, "-v", "error", "-nostdin", "-i"]
                _run([*quiet, source, "-c:a", "libopus", "-b:a", f"{kbps:g}k", coded])
                _run([*quiet, coded, "-c:a", "pcm_f32le", "-ar", str(_OPUS_RATE), decoded])
            else:
                _run([self.encoder, "--quiet", "--bitrate", f"{kbps:g}", source, coded])
                rate = ["--rate", str(_OPUS_RATE)]
                _run([self.decoder, "--quiet", "--float", *rate, coded, decoded])
            bits = 8 * payload_bytes(Path(coded).read_bytes())
            heard, rate_found = soundfile.read(decoded, dtype="float32", always_2d=True)
        if heard.shape[1] != wave.shape[0] or rate_found != _OPUS_RATE:
            raise OSError(
                f"{self.decoder}: expected {wave.shape[0]} channels at {_OPUS_RATE} Hz, found "
                f"{heard.shape[1]} at {rate_found} Hz"
            )
        return _fitted(soxr.resample(heard, _OPUS_RATE, sample_rate).T, wave.shape[1]), bits


def payload_bytes(data: bytes) -> int:
    """Bytes of the audio packets of an Ogg Opus file. Raises ValueError for anything else."""
    packets = total = position = 0
    while position < len(data):
        if len(data) - position < _PAGE.size:
            raise ValueError(f"Ogg file: truncated page at byte {position}")
        magic, *_, segments = _PAGE.unpack_from(data, position)
        table = data[position + _PAGE.size : position + _PAGE.size + segments]
        if magic != b"OggS" or len(table) < segments:
            raise ValueError(f"Ogg file: no page at byte {position}")
        for size in table:
            total += size if packets >= _HEADERS else 0
            packets += size < 255  # a full segment goes on in the next
        position += _PAGE.size + segments + sum(table)
    return total


def lowpass(wave: Audio, sample_rate: int, cutoff: float) -> Audio:
    """float32 [channels, samples] without what lies above `cutoff` Hz, aligned with its original.

    A linear-phase filter: within 0.01 dB up to `cutoff`, 70 dB down from a seventh above it; of the
    3.5 kHz anchor BS.1534 asks for 25 dB at 4 kHz and 50 dB at 4.5 kHz.
    """
    width = 2 * math.pi * _TRANSITION * cutoff / sample_rate  # Kaiser's design formulas
    taps = 2 * math.ceil((_ATTENUATION - 7.95) / (2.285 * width) / 2) + 1
    shape = np.kaiser(taps, 0.1102 * (_ATTENUATION - 8.7))
    middle = 2 * cutoff * (1 + _TRANSITION / 2) / sample_rate
    filter_ = shape * middle * np.sinc(middle * (np.arange(taps) - taps // 2))
    filter_ /= filter_.sum()
    length = wave.shape[1] + taps - 1
    size = 1 << (length - 1).bit_length()
    spectrum = np.fft.rfft(wave, size) * np.fft.rfft(filter_, size)
    start = taps // 2
    return np.fft.irfft(spectrum, size)[:, start : start + wave.shape[1]].astype(np.float32)


def _fitted(wave: Audio, length: int) -> Audio:
    """Cut or filled with zeros to `length` samples (resampling rounds lengths)."""
    missing = max(0, length - wave.shape[1])
    return np.ascontiguousarray(np.pad(wave, ((0, 0), (0, missing)))[:, :length])


def _run(command: list[str]) -> str:
    """The output of a program. Raises OSError with its last line of complaint where it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"{command[0]}: not done after {_SECONDS:g} s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise OSError(f"{command[0]}: exit status {done.returncode}: {last}")
    return done.stdout or done.stderr


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "unknown version"
