"""The codes of an `.ecdc` file, version 1, on their way out of it: chunks to pieces, and damage."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import IO

from encodec_fast._native import CodeArray
from encodec_fast.chunk_codes import MAX_SCALE, SCALE
from encodec_fast.chunk_header import Header, Opened
from encodec_fast.chunks import Chunk, ChunkReader, End, read_index
from encodec_fast.ecdc import shown_model
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.payloads import Run, RunCoder
from encodec_fast.program import Program
from encodec_fast.segments import Gap, Piece

# Key intervals that a language model decodes together: they share each read of its weights. More
# would save little of a file's time (docs/entropy.md), and cost as much of a short range's.
LANES = 8
# Of a model without segments.
_FRAMES_PER_PIECE = 1000

Decoded = tuple[Run, list[CodeArray | None]]


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
        threads: int = 1,
        live: bool = False,
    ) -> None:
        """threads: that a language model runs on; live: decode each chunk when it is there, instead
        of several intervals together, and never seek."""
        header = opened.header
        _check_model(header, program, model, name)
        self.header = header
        self.lost: list[tuple[int, int | None]] = []
        self.start = header.start
        self._name = name
        self._about = program.header
        self._segmented = self._about.segment_length is not None
        self._live = live
        self._threads = 1 if live else threads
        arguments = program, header.entropy, model, header.n_codebooks
        self._coder = RunCoder(*arguments, None if live else LANES)
        self._known = -1  # the chunk that would go on from the last one
        self._scales: dict[int, float] = {}  # of chunks that are not decoded yet
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
        return number * self._unit, self._pieces(number * self._unit, self._decoded())

    def runs(self) -> Iterator[Run]:
        """The key intervals of the file (live: its chunks), as far as they are intact and begin
        with what is known, for who decodes those of many files together."""
        run: Run | None = None
        self._known = -1
        for record in self._chunks:
            if isinstance(record, End):
                if self._fits(record):
                    self._end = record
                else:
                    self._chunks.damaged = True
                break
            key = record.number % self.header.key_chunks == 0
            follows = record.number == self._known
            if not key and not follows and self.header.entropy == "lm":
                continue
            if run is not None and (key or not follows):
                yield run
                run = None
            self._known = record.number + 1
            if (chunk := self._without_scale(record)) is None:
                continue
            if run is None:
                run = Run(key, [])
            run.chunks.append(chunk)
            if self._live:
                yield run
                run = None
        if run is not None:
            yield run

    def joined(self, decoded: Iterable[Decoded]) -> Iterator[Piece | Gap]:
        """As `pieces`, of the runs of the whole file and what became of their chunks."""
        return self._pieces(0, iter(decoded))

    @property
    def _unit(self) -> int:
        """Frames of a chunk, or 1 where it is a segment."""
        return 1 if self._segmented else self.header.chunk_frames

    def _pieces(self, at: int, decoded: Iterator[Decoded]) -> Iterator[Piece | Gap]:
        first, some = at, False
        # What may be missing altogether: a hostile file must not make days of silence.
        believed = self._chunks.max_gap * self._unit
        for chunk, scale, codes in self._intact(decoded):
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

    def _decoded(self) -> Iterator[Decoded]:
        jobs = self._coder.decoders(self._threads)
        waiting: deque[Run] = deque()
        try:
            for run in self.runs():
                waiting.append(run)
                for codes in jobs.push(run):
                    yield waiting.popleft(), codes
            for codes in jobs.flush():
                yield waiting.popleft(), codes
        finally:
            jobs.close()

    def _intact(
        self, decoded: Iterator[Decoded]
    ) -> Iterator[tuple[Chunk, float | None, CodeArray]]:
        """Chunks that are intact and whose context is known, with their scales and codes."""
        for run, results in decoded:
            for chunk, codes in zip(run.chunks, results, strict=True):
                scale = self._scales.pop(chunk.number, None)
                if codes is not None:
                    yield chunk, scale, codes
                    continue
                self._chunks.damaged = True
                if self._live:
                    self._known = -1  # the next chunk cannot go on from this one

    def _without_scale(self, chunk: Chunk) -> Chunk | None:
        """A chunk whose payload has codes alone, None where its scale is none."""
        if not self._about.normalize:
            return chunk
        if len(chunk.payload) < SCALE.size:
            return None
        (scale,) = SCALE.unpack_from(chunk.payload)
        if not 0 <= scale <= MAX_SCALE:
            return None
        self._scales[chunk.number] = scale
        return chunk._replace(payload=chunk.payload[SCALE.size :])

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
