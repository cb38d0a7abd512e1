"""The codes of an `.ecdc` file, version 1: chunks to pieces and back, with what damage costs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from encodec_fast._native import CodeArray
from encodec_fast.chunk_header import Header, Opened
from encodec_fast.chunks import Chunk, ChunkReader, ChunkWriter, End, read_index
from encodec_fast.ecdc import shown_model
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.payloads import Run, payload_coder
from encodec_fast.program import Program
from encodec_fast.segments import Gap, Piece

KEY_SECONDS = 10.0
LIVE_CHUNK_SECONDS = 1.0
# Key intervals that a language model decodes together: they share each read of its weights.
LANES = 8
# Of a model without segments.
_FRAMES_PER_PIECE = 1000
_SCALE = struct.Struct(">f")
_MAX_SCALE = float(np.finfo(np.float32).max)


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


class PieceWriter:
    """Writes pieces as chunks, each as soon as it is full.

    The constructor writes the header. Raises ValueError for an entropy mode that the entropy model
    does not have.
    """

    def __init__(
        self, stream: IO[bytes], program: Program, header: Header, model: EntropyModel | None
    ) -> None:
        self._coder = payload_coder(program, header.entropy, model, header.n_codebooks, 1)
        self._program = program
        self._header = header
        self._chunks = ChunkWriter(stream, header)
        self._waiting: list[CodeArray] = []
        self._frames = 0  # waiting
        self._scale: float | None = None
        self._segments = 0
        self._total = 0

    def write(self, piece: Piece) -> None:
        """Appends a piece. Raises ValueError for another number of codebooks and for a missing or
        invalid scale."""
        rows = self._header.n_codebooks
        if piece.codes.ndim != 2 or piece.codes.shape[0] != rows:
            raise ValueError(f"codes: expected shape [{rows}, frames], not {piece.codes.shape}")
        if piece.start:
            self._close()
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
                self._close()

    def finish(self, audio_length: int) -> None:
        """Ends the file of a recording of `audio_length` samples per channel. Raises ValueError if
        the pieces do not make up such a recording."""
        self._close()
        about = self._program.header
        stride = about.segment_stride
        if stride is None:
            expected, found, unit = -(-audio_length // about.hop), self._total, "frames"
        else:
            expected, found, unit = -(-audio_length // stride), self._segments, "segments"
        if expected != found:
            raise ValueError(
                f"codes: {audio_length} samples make {expected} {unit} of codes, not {found}"
            )
        self._chunks.finish(audio_length)

    def _close(self) -> None:
        if not self._frames:
            return
        codes = np.ascontiguousarray(np.concatenate(self._waiting, axis=1))
        payload = self._coder.encode(codes, self._chunks.is_key)
        if self._program.header.normalize:
            if self._scale is None or not 0 <= self._scale <= _MAX_SCALE:
                raise ValueError(
                    f"codes: the scale of a segment must be finite and >= 0, not {self._scale}"
                )
            payload = _SCALE.pack(self._scale) + payload
        self._chunks.write(payload, self._frames)
        self._waiting, self._frames = [], 0


class PieceReader:
    """Reads the codes of a file, as far as they survive.

    `lost` grows while pieces are read, by ranges of frames (first, end; None: the unknown end of
    the recording), or of segments for models that code those; `damaged` says whether anything was
    not as it was written. `audio_length` is in samples per channel, None until the end record was
    read or found by the index. Raises ValueError for a file of another model or entropy model.
    """

    def __init__(
        self,
        stream: IO[bytes],
        opened: Opened,
        name: str,
        program: Program,
        model: EntropyModel | None,
        live: bool = False,
    ) -> None:
        """live: decode each chunk when it is there, instead of several intervals together, and
        never seek."""
        header = opened.header
        _check_model(header, program, model, name)
        self.header = header
        self.lost: list[tuple[int, int | None]] = []
        self.start = header.start
        self._name = name
        self._about = program.header
        self._segmented = self._about.segment_length is not None
        self._lanes = LANES if header.entropy == "lm" and not live else 1
        self._coder = payload_coder(program, header.entropy, model, header.n_codebooks, self._lanes)
        self._chunks = ChunkReader(stream, opened, self._about.hop)
        self._stream = stream
        self._end: End | None = None
        self._offsets: list[int] = []
        if not live and stream.seekable():
            index = read_index(stream, opened, self._about.hop)
            self._chunks.begin_at(0)
            if index is not None and self._fits(index.end):
                self._end, self._offsets = index

    @property
    def audio_length(self) -> int | None:
        return None if self._end is None else self._end.audio_length

    @property
    def damaged(self) -> bool:
        return self._chunks.damaged or bool(self.lost)

    def pieces(self, first: int = 0) -> tuple[int, Iterator[Piece | Gap]]:
        """Where the result begins, and pieces and gaps from there on without a break.

        With an index that is the latest key chunk at or before frame (segment) `first`, else the
        start of the file. While iterating: ValueError where no chunk of the file is intact,
        EOFError where it has none.
        """
        number = 0
        if self._offsets:
            key_chunks = self.header.key_chunks
            interval = min(first // self._unit // key_chunks, len(self._offsets) - 1)
            number = interval * key_chunks
            self._stream.seek(self._offsets[interval])
            self._chunks.begin_at(number)
        return number * self._unit, self._pieces(number * self._unit)

    @property
    def _unit(self) -> int:
        """Frames of a chunk, or 1 where it is a segment."""
        return 1 if self._segmented else self.header.chunk_frames

    def _pieces(self, at: int) -> Iterator[Piece | Gap]:
        first, some = at, False
        # What may be missing altogether: a hostile file must not make days of silence.
        believed = self._chunks.max_gap * self._unit
        for chunk, scale, codes in self._decoded():
            begin = chunk.number * self._unit
            believed -= begin - at
            if believed < 0:
                break
            yield from self._gap(at, begin)
            # Parts of a chunk: audio takes far more memory than codes.
            step = codes.shape[1] if self._segmented else _FRAMES_PER_PIECE
            for part in range(0, codes.shape[1], step):
                first_part = self._segmented or begin + part == 0
                yield Piece(codes[:, part : part + step], scale, first_part)
            some = True
            at = begin + (1 if self._segmented else chunk.frames)
            believed += at - begin
        total = self._total()
        if not some and first == 0 and total != 0:
            if total is None and not self._chunks.damaged:
                raise EOFError(f"{self._name}: truncated (it ends before the first chunk)")
            raise ValueError(f"{self._name}: damaged, no chunk is intact")
        if total is not None and total - at <= believed:
            yield from self._gap(at, total)
        else:
            self.lost.append((at, None))

    def _total(self) -> int | None:
        """Frames (segments) of the recording, if it is known."""
        if self._end is None:
            return None
        if self._segmented:
            return self._end.chunks
        return -(-self._end.audio_length // self._about.hop)

    def _gap(self, at: int, end: int) -> Iterator[Gap]:
        """Gaps of bounded size from frame (segment) `at` to `end`."""
        if at < end:
            self.lost.append((at, end))
        while at < end:
            step = min(end - at, self._unit, _FRAMES_PER_PIECE)
            yield Gap(step)
            at += step

    def _decoded(self) -> Iterator[tuple[Chunk, float | None, CodeArray]]:
        """Chunks that are intact and whose context is known, with their scales and codes."""
        runs: list[Run] = []
        known = -1  # the chunk whose context the coder has
        for record in self._chunks:
            if isinstance(record, End):
                if self._fits(record):
                    self._end = record
                else:
                    self._chunks.damaged = True
                break
            key = record.number % self.header.key_chunks == 0
            if not key and record.number != known and self.header.entropy == "lm":
                continue
            if key or record.number != known or not runs:
                if len(runs) == self._lanes:
                    yield from self._decode(runs)
                    runs = []
                runs.append(Run(key, []))
            runs[-1].chunks.append(record)
            known = record.number + 1
            if self._lanes == 1:
                intact = 0
                for found in self._decode(runs):
                    intact += 1
                    yield found
                if not intact:
                    known = -1
                runs = []
        yield from self._decode(runs)

    def _decode(self, runs: list[Run]) -> Iterator[tuple[Chunk, float | None, CodeArray]]:
        scales: dict[int, float] = {}
        if self._about.normalize:
            runs = [
                Run(True, [c for c in run.chunks if self._take_scale(c, scales)]) for run in runs
            ]
            payloads = [
                Run(True, [c._replace(payload=c.payload[_SCALE.size :]) for c in run.chunks])
                for run in runs
            ]
        else:
            payloads = runs
        for run, results in zip(runs, self._coder.decode(payloads), strict=True):
            for chunk, codes in zip(run.chunks, results, strict=True):
                if codes is not None:
                    yield chunk, scales.get(chunk.number), codes
                else:
                    self._chunks.damaged = True

    def _take_scale(self, chunk: Chunk, scales: dict[int, float]) -> bool:
        if len(chunk.payload) < _SCALE.size:
            return False
        (scale,) = _SCALE.unpack_from(chunk.payload)
        scales[chunk.number] = scale
        return bool(0 <= scale <= _MAX_SCALE)

    def _fits(self, end: End) -> bool:
        """Whether an end record can be the one of a recording of this model."""
        stride = self._about.segment_stride
        if stride is not None:
            return end.chunks == -(-end.audio_length // stride)
        frames = -(-end.audio_length // self._about.hop)
        return end.chunks == -(-frames // self.header.chunk_frames)


def _check_model(header: Header, program: Program, model: EntropyModel | None, name: str) -> None:
    about = program.header
    found = shown_model(header.model)
    if header.model != about.name:
        raise ValueError(f"{name}: written by model {found}, not {about.name}")
    if header.model_hash != program.hash:
        raise ValueError(
            f"{name}: written by another version of {found} (hash {header.model_hash}, this "
            f"one has {program.hash})"
        )
    if header.entropy != "none":
        if model is None:
            raise ValueError(
                f"{name}: written with the entropy model of {found}, which is not installed"
            )
        if header.entropy_hash != model.hash:
            raise ValueError(
                f"{name}: written with another version of the entropy model of {found} (hash "
                f"{header.entropy_hash}, this one has {model.hash})"
            )
    if header.n_codebooks > about.n_codebooks:
        raise ValueError(
            f"{name}: has {header.n_codebooks} codebooks, but {found} has only {about.n_codebooks}"
        )
    if (header.sample_rate, header.channels) != (about.sample_rate, about.channels):
        raise ValueError(f"{name}: damaged header (its rate or channels are not those of {found})")
    if about.segment_length is not None:
        frames = -(-about.segment_length // about.hop)
        if (header.chunk_frames, header.key_chunks) != (frames, 1):
            raise ValueError(f"{name}: damaged header (its chunks are not the segments of {found})")
