"""The codes of an `.ecdc` file, version 1, on their way into it: pieces to chunks."""

from __future__ import annotations

import io
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from encodec_fast._native import CodeArray
from encodec_fast.chunk_header import Header
from encodec_fast.chunks import ChunkWriter
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.payloads import CodeRun, RunCoder
from encodec_fast.program import Program
from encodec_fast.segments import Piece

KEY_SECONDS = 10.0
LIVE_CHUNK_SECONDS = 1.0
# Key intervals of many recordings that a language model encodes together; those of one recording
# are long, and gain nothing from each other (docs/entropy.md).
MANY_LANES = 16
SCALE = struct.Struct(">f")
MAX_SCALE = float(np.finfo(np.float32).max)


def make_header(
    program: Program,
    n_q: int,
    entropy: str = "none",
    model: EntropyModel | None = None,
    chunk_seconds: float = KEY_SECONDS,
    start: str = "exact",
    metadata: dict[str, Any] | None = None,
) -> Header:
    """The header of a new file of `n_q` codebooks, in chunks of about `chunk_seconds` (at least a
    frame; one segment where the model codes segments) and key intervals of about 10 s. Raises
    ValueError for another entropy mode, start or length of chunks."""
    about = program.header
    if not isinstance(chunk_seconds, (int, float)) or not 0 < chunk_seconds < 1e6:
        raise ValueError(f"chunk: expected a positive number of seconds, found {chunk_seconds!r}")
    if entropy in ("static", "lm") and model is None:
        raise ValueError(f"entropy: {entropy!r} needs an entropy model, {about.name} has none")
    frame_rate = about.sample_rate / about.hop
    if about.segment_length is None:
        frames = max(1, round(chunk_seconds * frame_rate))
        key_chunks = max(1, round(KEY_SECONDS * frame_rate / frames))
    else:
        if start != "exact":
            raise ValueError(f"start: {about.name} codes whole segments, which have no {start!r}")
        frames, key_chunks = -(-about.segment_length // about.hop), 1
    return Header(
        model=about.name,
        model_hash=program.hash,
        sample_rate=about.sample_rate,
        channels=about.channels,
        n_codebooks=n_q,
        chunk_frames=frames,
        key_chunks=key_chunks,
        entropy=entropy,
        entropy_hash="" if entropy == "none" or model is None else model.hash,
        start=start,
        metadata=metadata or {},
    )


class ChunkCodes(NamedTuple):
    """Codes uint16 [n_q, frames] of a chunk, and the scale of its segment, where there is one."""

    codes: CodeArray
    scale: float | None


class Cutter:
    """Cuts the pieces of a recording into the chunks of its file."""

    def __init__(self, program: Program, header: Header) -> None:
        self._about = program.header
        self._header = header
        self._waiting: list[CodeArray] = []
        self._frames = 0  # waiting
        self._scale: float | None = None
        self._segments = 0
        self._total = 0

    def push(self, piece: Piece) -> list[ChunkCodes]:
        """The chunks that a piece completes. Raises ValueError for another number of codebooks and
        for a missing or invalid scale."""
        rows = self._header.n_codebooks
        if piece.codes.ndim != 2 or piece.codes.shape[0] != rows:
            raise ValueError(f"codes: expected shape [{rows}, frames], not {piece.codes.shape}")
        done: list[ChunkCodes] = []
        if piece.start:
            done += self._close()
            self._segments += 1
            self._scale = piece.scale
        codes = piece.codes
        while codes.shape[1]:
            part = codes[:, : self._header.chunk_frames - self._frames]
            self._waiting.append(part)
            self._frames += part.shape[1]
            self._total += part.shape[1]
            codes = codes[:, part.shape[1] :]
            if self._frames == self._header.chunk_frames:
                done += self._close()
        return done

    def finish(self, audio_length: int) -> list[ChunkCodes]:
        """The last chunk of a recording of `audio_length` samples per channel, if any is left.
        Raises ValueError if the pieces do not make up such a recording."""
        done = self._close()
        about = self._about
        stride = about.segment_stride
        if stride is None:
            expected, found, unit = -(-audio_length // about.hop), self._total, "frames"
        else:
            expected, found, unit = -(-audio_length // stride), self._segments, "segments"
        if expected != found:
            raise ValueError(
                f"codes: {audio_length} samples make {expected} {unit} of codes, not {found}"
            )
        return done

    def _close(self) -> list[ChunkCodes]:
        if not self._frames:
            return []
        if self._about.normalize and (self._scale is None or not 0 <= self._scale <= MAX_SCALE):
            raise ValueError(
                f"codes: the scale of a segment must be finite and >= 0, not {self._scale}"
            )
        codes = np.ascontiguousarray(np.concatenate(self._waiting, axis=1))
        self._waiting, self._frames = [], 0
        return [ChunkCodes(codes, self._scale if self._about.normalize else None)]


class PieceWriter:
    """Writes pieces as chunks: each as soon as it is full where `live`, else key interval by key
    interval, with a language model on up to `threads` threads.

    The constructor writes the header. Raises ValueError for an entropy mode that the entropy model
    does not have. In a `with` block, an error leaves no thread behind.
    """

    def __init__(
        self,
        stream: IO[bytes],
        program: Program,
        header: Header,
        model: EntropyModel | None,
        threads: int = 1,
        live: bool = False,
    ) -> None:
        lanes = None if live else 1
        coder = RunCoder(program, header.entropy, model, header.n_codebooks, lanes)
        self._jobs = coder.encoders(1 if live else threads)
        self._run_chunks = 1 if live else header.key_chunks
        self._key_chunks = header.key_chunks
        self._cutter = Cutter(program, header)
        self._chunks = ChunkWriter(stream, header)
        self._run: list[CodeArray] = []
        self._number = 0  # of chunks that were cut
        self._cut: deque[ChunkCodes] = deque()  # which are not written yet

    def write(self, piece: Piece) -> None:
        """Appends a piece. Raises as Cutter.push, and what the device raises that codes."""
        self._add(self._cutter.push(piece))

    def finish(self, audio_length: int) -> None:
        """Ends the file of a recording of `audio_length` samples per channel. Raises as
        Cutter.finish."""
        self._add(self._cutter.finish(audio_length))
        self._put(self._jobs.push(self._taken()) if self._run else [])
        self._put(self._jobs.flush())
        self._chunks.finish(audio_length)

    def __enter__(self) -> PieceWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.close()

    def _add(self, chunks: list[ChunkCodes]) -> None:
        for chunk in chunks:
            self._cut.append(chunk)
            self._run.append(chunk.codes)
            self._number += 1
            if self._number % self._run_chunks == 0:
                self._put(self._jobs.push(self._taken()))

    def _taken(self) -> CodeRun:
        first = self._number - len(self._run)
        run = CodeRun(first % self._key_chunks == 0, self._run)
        self._run = []
        return run

    def _put(self, results: list[list[bytes]]) -> None:
        for payload in (payload for payloads in results for payload in payloads):
            write_chunk(self._chunks, self._cut.popleft(), payload)


def write_chunk(writer: ChunkWriter, chunk: ChunkCodes, payload: bytes) -> None:
    """Appends a chunk whose codes were coded."""
    if chunk.scale is not None:
        payload = SCALE.pack(chunk.scale) + payload
    writer.write(payload, chunk.codes.shape[1])


def files_of(
    program: Program,
    model: EntropyModel | None,
    recordings: Sequence[tuple[Header, Iterable[Piece], int]],
    threads: int = 1,
) -> list[bytes]:
    """The files of recordings (header, pieces and samples per channel of each), which PieceWriter
    would write one by one; a language model has the key intervals of all of them at once. Their
    headers have one entropy mode and one number of codebooks. Raises as PieceWriter."""
    if not recordings:
        return []
    about = recordings[0][0]
    coder = RunCoder(program, about.entropy, model, about.n_codebooks, MANY_LANES)
    jobs = coder.encoders(threads)
    payloads: list[bytes] = []
    cut: list[list[ChunkCodes]] = []
    try:
        for header, pieces, audio_length in recordings:
            cutter = Cutter(program, header)
            chunks = [chunk for piece in pieces for chunk in cutter.push(piece)]
            chunks += cutter.finish(audio_length)
            cut.append(chunks)
            for first in range(0, len(chunks), header.key_chunks):
                run = [chunk.codes for chunk in chunks[first : first + header.key_chunks]]
                for done in jobs.push(CodeRun(True, run)):
                    payloads += done
        for done in jobs.flush():
            payloads += done
    finally:
        jobs.close()
    following = iter(payloads)
    files = []
    for (header, _, audio_length), chunks in zip(recordings, cut, strict=True):
        stream = io.BytesIO()
        writer = ChunkWriter(stream, header)
        for chunk in chunks:
            write_chunk(writer, chunk, next(following))
        writer.finish(audio_length)
        files.append(stream.getvalue())
    return files
