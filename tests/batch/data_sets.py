"""Small data sets of recordings for the tests of tokenisation."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from encodec_fast.audio import AudioReader
from encodec_fast.codec import Codec
from encodec_fast.codes import Codes

# Name, Hz, channels, seconds: several formats, rates and channel counts.
RECORDINGS = (
    ("speech/a.wav", 8000, 1, 1.3),
    ("speech/a.flac", 16000, 1, 0.9),
    ("speech/b.mp3", 44100, 2, 1.7),
    ("music/c.ogg", 48000, 2, 0.6),
    ("music/deep/d.wav", 11025, 2, 2.4),
    ("e.flac", 8000, 1, 0.011),
    ("f.wav", 22050, 1, 0.4),
)


def sound(name: str, rate: int, channels: int, seconds: float) -> np.ndarray:
    """Noise under a slow tone, float32 [samples, channels], the same for the same name."""
    random = np.random.default_rng(list(name.encode()))
    length = max(1, int(rate * seconds))
    tone = 0.3 * np.sin(np.arange(length) * random.uniform(0.01, 0.2))
    noise = random.uniform(-0.3, 0.3, (length, channels))
    return np.asarray(noise + tone[:, None], np.float32)


def sound_bytes(name: str, rate: int, channels: int, seconds: float) -> bytes:
    """A sound as a file of the kind that the suffix of `name` says."""
    stream = io.BytesIO()
    kind = Path(name).suffix[1:].upper()
    soundfile.write(stream, sound(name, rate, channels, seconds), rate, format=kind)
    return stream.getvalue()


def write_corpus(folder: Path) -> list[str]:
    """Writes RECORDINGS; the names in the order of keys."""
    for name, *about in RECORDINGS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sound_bytes(name, *about))
    return sorted(name for name, *_ in RECORDINGS)


def write_short_files(folder: Path, count: int, rate: int = 8000, seconds: float = 0.5) -> None:
    """`count` recordings of about `seconds`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name = f"{number:04d}.wav"
        length = seconds * (0.5 + number % 7 / 6)
        (folder / name).write_bytes(sound_bytes(name, rate, 1, length))


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """An uncompressed archive."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def alone(codec: Codec, source: Any, bandwidth: float | None = None) -> Codes:
    """The codes that a recording has by itself."""
    with AudioReader(source, codec.sample_rate, codec.channels) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
    return codec.encode(samples, bandwidth)


def same_codes(a: Codes, b: Codes) -> bool:
    """Whether two recordings are coded alike, scales and length too."""
    if (a.scales, a.audio_length, a.model) != (b.scales, b.audio_length, b.model):
        return False
    return len(a.codes) == len(b.codes) and all(map(np.array_equal, a.codes, b.codes))


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder, by name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
