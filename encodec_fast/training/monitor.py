"""What TensorBoard shows of a run: scalars, spectrogram pictures and audio samples.

TensorBoard is an optional package (`pip install 'encodec-fast[train]'`); a run goes on without it.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from torch import Tensor

FOLDER = "tensorboard"

_WINDOW = 512  # samples of the spectrogram, in steps of half of it
_COLUMNS = 640  # of a picture at most
_RANGE = 90.0  # dB below full scale that the colours tell apart
# Colours from silence to full scale: black, blue, violet, red, orange, yellow, white.
_COLOURS = (
    *((0, 0, 0), (20, 20, 90), (95, 20, 140), (190, 40, 90)),
    *((240, 120, 30), (250, 215, 70), (255, 255, 255)),
)


class Monitor:
    """Writes a run's events into the folder `tensorboard` in the folder of the run.

    folder: of the run. sample_rate: of its audio in Hz. step: the run goes on from this one, and
    what an earlier process told of later ones is hidden. Of several processes, one has a monitor.
    Without the package tensorboard, or when the disk is full, it says so on stderr, once, and
    keeps nothing more: a run does not end for want of pictures.
    """

    def __init__(self, folder: str | Path, sample_rate: int, step: int = 0) -> None:
        self._sample_rate = sample_rate
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            _say("no TensorBoard events are written: it comes with encodec-fast[train]")
            return
        try:
            # Hides what is from purge_step on; a run that was resumed would have two curves.
            self._writer = SummaryWriter(str(Path(folder) / FOLDER), purge_step=step + 1)
        except OSError as error:
            self._give_up(error)

    def scalars(self, step: int, values: Mapping[str, float | Tensor]) -> None:
        """Numbers or scalar tensors by name; a name's part before `/` groups them."""
        for name, value in values.items():
            self._add(step, name, simple_value=float(value))

    def audio(self, step: int, name: str, wave: Tensor) -> None:
        """A recording [C, T] to listen to, as 16-bit WAV; what is beyond full scale is clipped."""
        samples = _samples(wave)
        file = io.BytesIO()
        clipped = samples.clip(-1, 1).T
        soundfile.write(file, clipped, self._sample_rate, subtype="PCM_16", format="WAV")
        kept: dict[str, Any] = {"encoded_audio_string": file.getvalue()}
        kept["num_channels"], kept["length_frames"] = samples.shape
        kept |= {"sample_rate": self._sample_rate, "content_type": "audio/wav"}
        self._add(step, name, audio=kept)

    def spectrogram(self, step: int, name: str, wave: Tensor) -> None:
        """A picture of a recording [C, T]: time to the right, up to half the sample rate upwards,
        90 dB from black to white (full scale), one channel below the other."""
        levels = spectrogram_levels(_samples(wave))
        kept = {"encoded_image_string": _png(levels), "colorspace": 3}
        kept["height"], kept["width"] = levels.shape
        self._add(step, name, image=kept)

    def close(self) -> None:
        """Brings the events to the disk."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                self._give_up(error)
            self._writer = None

    def _add(self, step: int, name: str, **value: Any) -> None:
        if self._writer is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        try:
            # Not by add_audio, which has one channel only, nor add_image, which needs Pillow.
            summary = Summary(value=[Summary.Value(tag=name, **value)])
            self._writer.file_writer.add_summary(summary, step)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        _say(f"no more TensorBoard events are written ({error})")


def spectrogram_levels(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture of samples [C, T]: uint8 [C * 257 rows, columns], 0 at -90 dB and below, 255 at
    0 dB, the level of a sine of full scale. The top row of each channel is half the sample rate.

    Power of Hann windows of 512 samples, 256 apart, meant over time to 640 columns at most.
    """
    step = _WINDOW // 2
    padded = np.pad(samples, ((0, 0), (step, step + -samples.shape[1] % step)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW, axis=1)[:, ::step]
    hann = np.hanning(_WINDOW + 1)[:-1]
    amplitude = np.abs(np.fft.rfft(windows * hann)) * (2 / hann.sum())
    count = amplitude.shape[1]
    starts = np.arange(0, count, -(-count // _COLUMNS))
    sizes = np.diff(np.append(starts, count))
    power = np.add.reduceat(amplitude**2, starts, axis=1) / sizes[:, None]
    decibels = 10 * np.log10(power + 1e-12)
    levels = np.clip(1 + decibels / _RANGE, 0, 1) * 255
    picture = levels.round().astype(np.uint8).transpose(0, 2, 1)[:, ::-1]
    return picture.reshape(-1, picture.shape[2])


def _samples(wave: Tensor) -> NDArray[np.float32]:
    """A recording as numpy has it; samples that a model made NaN or infinite are silence."""
    if wave.dim() != 2 or not wave.numel():
        raise ValueError(f"wave: expected shape [channels, samples], found {list(wave.shape)}")
    samples: NDArray[np.float32] = wave.detach().float().cpu().numpy()
    return np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)


def _png(levels: NDArray[np.uint8]) -> bytes:
    """Levels [height, width] as a PNG file with the colours as its palette (ISO/IEC 15948)."""
    height, width = levels.shape
    places = np.linspace(0, len(_COLOURS) - 1, 256)
    table = np.array(_COLOURS).T
    palette = np.stack([np.interp(places, np.arange(len(_COLOURS)), band) for band in table], 1)
    rows = np.pad(levels, ((0, 0), (1, 0)))  # a row begins with its filter: none
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0),  # 8 bits, palette
        b"PLTE": palette.round().astype(np.uint8).tobytes(),
        b"IDAT": zlib.compress(rows.tobytes()),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


def _say(message: str) -> None:
    print(f"encodec-fast: {message}", file=sys.stderr)
