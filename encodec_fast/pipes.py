"""Live pipes: raw PCM in, a version 1 file out as it goes, and the reverse."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO, Any, Literal

import numpy as np

from encodec_fast import chunk_codes, container, decoding, store
from encodec_fast.audio import Converter, Float32, check_samples
from encodec_fast.audio_writer import pcm16
from encodec_fast.codec import Codec
from encodec_fast.container import Lost

SampleFormat = Literal["s16le", "f32le"]
_DTYPES: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "f32le": np.dtype("<f4")}
_MAX_CHANNELS = 64
_READ_BYTES = 1 << 16


def encode_pipe(
    codec: Codec,
    source: IO[bytes],
    target: IO[bytes],
    *,
    sample_format: SampleFormat = "s16le",
    sample_rate: int | None = None,
    channels: int | None = None,
    bandwidth: float | None = 6.0,
    entropy: str = "none",
    chunk: float = chunk_codes.LIVE_CHUNK_SECONDS,
    start: str = "exact",
) -> int:
    """Codes raw interleaved PCM as it comes; each chunk is written and flushed when it is full.

    sample_rate, channels: of the PCM, those of the model unless given; chunk: seconds, down to a
    frame (models that code segments: always a segment); start: see Codec.stream_encoder. Returns
    the samples per channel that were coded, at the model's rate; a source that ends at once makes a
    file of none, and one that is interrupted (Ctrl-C) a whole file of what came so far, before the
    interrupt goes on. Raises ValueError for arguments out of range and for samples that are NaN or
    infinite.
    """
    rate = codec.sample_rate if sample_rate is None else sample_rate
    count = codec.channels if channels is None else channels
    if type(count) is not int or not 1 <= count <= _MAX_CHANNELS:
        raise ValueError(f"channels: expected an integer in 1..{_MAX_CHANNELS}, found {count!r}")
    n_q = codec.n_q(bandwidth)
    open_writer = codec.piece_writer(n_q, entropy, chunk=chunk, start=start, live=True)
    dtype = _dtype(sample_format)
    converter = Converter(rate, codec.sample_rate, count, codec.channels)
    blocks = _pcm_blocks(source, dtype, count)
    writer = open_writer(target)
    length: int = 0
    with codec.block_encoder(n_q, start, live=True) as encoder:
        stop: BaseException | None = None
        while True:
            try:
                block = next(blocks, None)
            except (KeyboardInterrupt, SystemExit) as error:
                stop, block = error, None  # what was recorded so far is a whole file
            if block is None:
                break
            audio = converter.push(block)
            length += audio.shape[1]
            for piece in encoder.push(audio):
                writer.write(piece)
        audio = converter.flush()
        length += audio.shape[1]
        for piece in [*encoder.push(audio), *encoder.flush()]:
            writer.write(piece)
    writer.finish(length)
    target.flush()
    if stop is not None:
        raise stop
    return length


def decode_pipe(
    source: IO[bytes],
    target: IO[bytes],
    *,
    model: str | os.PathLike[str] | None = None,
    sample_format: SampleFormat = "s16le",
    strict: bool = False,
) -> list[Lost]:
    """Decodes an `.ecdc` file as it comes to raw interleaved PCM of the model's rate and channels;
    each chunk's samples are written and flushed at once.

    The result holds whole frames: up to a frame more than was recorded. Returns the ranges of lost
    time of a damaged file, which are silent, after a DamageWarning. Raises as decompress_file.
    """
    dtype = _dtype(sample_format)
    header = container.read_header(source, "stream")
    codec = Codec.load(model or store.find_model(container.model_name(header)))
    recording = codec.open_recording(source, header, "stream", live=True)
    for block in decoding.decoded(codec.program, recording, "stream", strict=strict, live=True):
        check_samples(block, "stream")
        samples = pcm16(block.T) if dtype.kind == "i" else block.T
        target.write(np.ascontiguousarray(samples, dtype).tobytes())
        target.flush()
    return container.report_damage(recording, codec.program, "stream", strict)


def _dtype(sample_format: str) -> np.dtype[Any]:
    if sample_format not in _DTYPES:
        expected = " or ".join(_DTYPES)
        raise ValueError(f"format: expected {expected}, found {sample_format!r}")
    return _DTYPES[sample_format]


def _pcm_blocks(source: IO[bytes], dtype: np.dtype[Any], channels: int) -> Iterator[Float32]:
    """Whatever is there, as float32 [channels, samples]; a last incomplete sample is dropped."""
    read = getattr(source, "read1", source.read)
    size = dtype.itemsize * channels
    rest, position = b"", 0
    while data := read(_READ_BYTES):
        data = rest + data
        whole = len(data) - len(data) % size
        rest = data[whole:]
        samples = np.frombuffer(data[:whole], dtype).reshape(-1, channels).T.astype(np.float32)
        if dtype.kind == "i":
            samples /= np.float32(32768)
        check_samples(samples, "stdin", position)
        position += samples.shape[1]
        yield samples
