"""Test signals: real recordings where the checkout has them beside it, synthetic ones elsewhere.

Recordings are read from `$ENCODEC_FAST_TEST_AUDIO`, by default the folder `shared/audio` beside the
repository, with the splits `train` and `test`. A clone without them gets a deterministic synthetic
signal of the same shape, so that no test depends on them being there.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

REPOSITORY = Path(__file__).resolve().parents[1]
CLIP_SECONDS = 3.0
# One and two samples, around one and two frames, around one second, and two to four segments.
LENGTHS = (1, 2, 319, 320, 321, 641, 24001, 100001)

FloatArray = npt.NDArray[np.float32]


def audio_root() -> Path:
    """Return the folder that holds the splits `train` and `test`; it need not exist."""
    override = os.environ.get("ENCODEC_FAST_TEST_AUDIO")
    return Path(override) if override else REPOSITORY.parent / "shared" / "audio"


def program_material(split: str, sample_rate: int, channels: int, seconds: float) -> FloatArray:
    """Return varied audio, float32 [channels, seconds * sample_rate], the same at every call.

    Clips of three seconds are taken in turn from speech, music and other sounds of the split.
    """
    clips: list[FloatArray] = []
    missing = int(seconds * sample_rate)
    wanted = -(-missing // int(CLIP_SECONDS * sample_rate))
    recordings = _recordings(split, wanted)
    for index in range(wanted):
        if recordings:
            clip = _read_clip(recordings[index % len(recordings)], sample_rate, channels)
        else:
            clip = synthetic_clip(1000 * len(split) + index, sample_rate, channels)
        clips.append(clip)
    return np.ascontiguousarray(np.concatenate(clips, axis=1)[:, :missing])


def synthetic_clip(seed: int, sample_rate: int, channels: int) -> FloatArray:
    """Return three seconds of chirps, plucks and noise bursts, float32 [channels, samples]."""
    rng = np.random.default_rng(seed)
    length = int(CLIP_SECONDS * sample_rate)
    time = np.arange(length) / sample_rate
    mono = np.zeros((2, length))
    for _ in range(6):
        low, high = np.exp(rng.uniform(np.log(60.0), np.log(0.4 * sample_rate), 2))
        phase = 2 * np.pi * (low * time + 0.5 * (high - low) * time**2 / CLIP_SECONDS)
        mono[rng.integers(2)] += rng.uniform(0.02, 0.15) * np.sin(phase + rng.uniform(0, 6))
    for _ in range(30):
        start = int(rng.integers(length))
        decay = np.exp(-time[: length - start] * rng.uniform(4, 60))
        if rng.random() < 0.6:
            pitch = np.exp(rng.uniform(np.log(80.0), np.log(2000.0)))
            partials = np.arange(1, 9)
            keep = partials * pitch < 0.45 * sample_rate
            angles = 2 * np.pi * pitch * np.outer(partials[keep], time[: length - start])
            burst = (np.sin(angles) / partials[keep, None]).sum(axis=0)
        else:
            width = int(rng.integers(1, 24))
            noise = rng.standard_normal(length - start + width - 1)
            burst = np.convolve(noise, np.ones(width) / np.sqrt(width), mode="valid")
        mono[rng.integers(2), start:] += rng.uniform(0.03, 0.3) * decay * burst
    mixed = mono.sum(axis=0, keepdims=True) if channels == 1 else mono + 0.5 * mono[::-1]
    return (0.8 * np.tanh(mixed)).astype(np.float32)


def white_noise(seed: int, channels: int, length: int) -> FloatArray:
    """Return full-scale uniform noise, float32 [channels, length]."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-1.0, 1.0, (channels, length)).astype(np.float32)


def hard_signals(channels: int, length: int = 24001) -> dict[str, FloatArray]:
    """Return silence, full-scale noise and, in stereo, channels that cancel out, by name."""
    noise = white_noise(3, channels, length)
    signals = {"silence": np.zeros_like(noise), "noise": noise}
    if channels == 2:
        signals["anti-phase"] = np.concatenate([noise[:1], -noise[:1]]) * np.float32(0.5)
    return signals


def _recordings(split: str, wanted: int) -> list[Path]:
    """Spread `wanted` choices over each kind's sorted recordings and interleave the kinds."""
    kinds: list[list[Path]] = []
    for folder in sorted((audio_root() / split).glob("*")):
        files = sorted(path for path in folder.glob("*") if path.suffix in (".flac", ".ogg"))
        step = max(1, 3 * len(files) // max(wanted, 1))
        kinds.append(files[::step])
    return [path for group in zip(*kinds, strict=False) for path in group] if kinds else []


def _read_clip(path: Path, sample_rate: int, channels: int) -> FloatArray:
    """Read three seconds from one second in, or from the start where the recording is shorter."""
    info = soundfile.info(str(path))
    frames = int(CLIP_SECONDS * info.samplerate)
    start = min(info.samplerate, max(0, info.frames - frames))
    data, rate = soundfile.read(
        str(path), frames=frames, start=start, dtype="float32", always_2d=True
    )
    if channels == 1:
        data = data.mean(axis=1, keepdims=True, dtype=np.float32)
    elif data.shape[1] != channels:
        data = np.repeat(data[:, :1], channels, axis=1)
    data = soxr.resample(data, rate, sample_rate).astype(np.float32)
    length = int(CLIP_SECONDS * sample_rate)
    repeats = -(-length // max(1, len(data)))
    return np.ascontiguousarray(np.tile(data, (repeats, 1))[:length].T)
