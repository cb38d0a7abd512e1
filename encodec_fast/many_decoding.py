"""Many `.ecdc` files to audio at once: their key intervals share the language model's reads of its
weights, their recordings (or the segments of all) the decoder's. Each gets what it would get alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from itertools import groupby
from typing import cast

import numpy as np

from encodec_fast._native import Audio, CodeArray
from encodec_fast.blocks import OverlapAdd
from encodec_fast.chunk_codes import MANY_LANES
from encodec_fast.container import Recording, report_damage
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.lanes import block_bounds, block_frames
from encodec_fast.many import RECORDING_LANES, run_on_threads
from encodec_fast.payloads import Run, RunCoder
from encodec_fast.piece_reader import PieceReader
from encodec_fast.program import Program
from encodec_fast.segments import Gap, Ordered, Piece, SegmentDecoder

Pieces = list[Piece | Gap]


def decoded_files(
    program: Program,
    model: EntropyModel | None,
    recordings: Sequence[Recording],
    names: Sequence[str],
    threads: int,
    strict: bool,
) -> list[Audio]:
    """The samples float32 [channels, n] of each file, as decoding.decoded gives them.

    model: what files with a language model need; names: of the files in messages. A damaged file
    gets a DamageWarning, and silence for what is lost. Raises ValueError for one where `strict`,
    and what the recordings raise.
    """
    pieces = _read(program, model, recordings, threads)
    for recording, name in zip(recordings, names, strict=True):
        report_damage(recording, program, name, strict)
    audio: dict[int, Audio] = {}

    def kind(number: int) -> tuple[str, int]:
        """Only files of one kind can share a native call: by start and number of codebooks."""
        codes = [piece.codes.shape[0] for piece in pieces[number] if isinstance(piece, Piece)]
        return recordings[number].start, codes[0] if codes else 0

    for (start, _), group in groupby(sorted(range(len(pieces)), key=kind), kind):
        numbers = list(group)
        chosen = [pieces[number] for number in numbers]
        if program.header.segmented:
            found = _decode_segments(program, chosen, [names[n] for n in numbers], threads)
        else:
            found = _decode_streams(program, chosen, start == "low_latency", threads)
        audio.update(zip(numbers, found, strict=True))
    lengths = [recording.audio_length for recording in recordings]
    return [np.ascontiguousarray(audio.pop(n)[:, :length]) for n, length in enumerate(lengths)]


def _read(
    program: Program, model: EntropyModel | None, recordings: Sequence[Recording], threads: int
) -> list[Pieces]:
    """The codes of each recording."""
    together: dict[int, list[int]] = {}  # by codebooks, which a coder has a fixed number of
    runs: dict[int, list[Run]] = {}
    for number, recording in enumerate(recordings):
        if isinstance(recording, PieceReader) and recording.header.entropy == "lm":
            together.setdefault(recording.header.n_codebooks, []).append(number)
            runs[number] = list(recording.runs())
    codes: dict[int, list[list[CodeArray | None]]] = {}
    for n_q, numbers in together.items():
        everything = [run for number in numbers for run in runs[number]]
        coder = RunCoder(program, "lm", model, n_q, MANY_LANES)
        ready = iter(_decode_runs(coder, everything, threads))
        codes.update((number, [next(ready) for _ in runs[number]]) for number in numbers)
    pieces: list[Pieces] = []
    for number, recording in enumerate(recordings):
        if isinstance(recording, PieceReader) and number in codes:
            decoded = zip(runs.pop(number), codes.pop(number), strict=True)
            pieces.append(list(recording.joined(decoded)))
        else:
            pieces.append(list(recording.pieces()[1]))
    return pieces


def _decode_runs(
    coder: RunCoder, runs: Sequence[Run], threads: int
) -> list[list[CodeArray | None]]:
    """The codes of each run. The longest come first: those that are decoded together end
    together."""

    def frames(position: int) -> int:
        return sum(chunk.frames for chunk in runs[position].chunks)

    order = sorted(range(len(runs)), key=frames, reverse=True)
    jobs = coder.decoders(threads)
    found: list[list[CodeArray | None]] = []
    try:
        for position in order:
            found += jobs.push(runs[position])
        found += jobs.flush()
    finally:
        jobs.close()
    return [codes for _, codes in sorted(zip(order, found, strict=True), key=lambda one: one[0])]


def _decode_streams(
    program: Program, recordings: Sequence[Pieces], low_latency: bool, threads: int
) -> list[Audio]:
    """The audio of recordings of a model without segments, to the end of their last frames. What
    follows a gap is decoded like a beginning, and so on a lane of its own."""
    stretches: list[CodeArray] = []
    for pieces in recordings:
        for is_gap, group in groupby(pieces, lambda piece: isinstance(piece, Gap)):
            if not is_gap:
                parts = [piece.codes for piece in cast("Iterable[Piece]", group)]
                stretches.append(np.concatenate(parts, axis=1))
    ready = deque(_decode_lanes(program, stretches, low_latency, threads))
    header = program.header
    results = []
    for pieces in recordings:
        audio = [np.zeros((header.channels, 0), np.float32)]
        for is_gap, group in groupby(pieces, lambda piece: isinstance(piece, Gap)):
            if is_gap:
                frames = sum(gap.length for gap in cast("Iterable[Gap]", group))
                audio.append(np.zeros((header.channels, frames * header.hop), np.float32))
            else:
                audio.append(ready.popleft())
        results.append(np.concatenate(audio, axis=1))
    return results


def _decode_lanes(
    program: Program, stretches: Sequence[CodeArray], low_latency: bool, threads: int
) -> list[Audio]:
    """The audio of each stretch, which begins and ends anew: one to a lane, the longest first, and
    the next one where a lane's has ended."""
    waiting = deque(sorted(range(len(stretches)), key=lambda n: -stretches[n].shape[1]))
    threads = max(1, min(threads, len(stretches)))
    lanes = max(1, min(max(RECORDING_LANES, program.breadth), -(-len(stretches) // threads)))
    first = 1 if low_latency else program.decoder.start_rows
    frames = block_frames(program.breadth, lanes)
    done: dict[int, Audio] = {}

    def work(stopped: threading.Event) -> None:
        native = program.new_decoder(lanes, low_latency)
        running: dict[int, tuple[int, deque[tuple[int, int]]]] = {}  # by lane
        parts: dict[int, list[Audio]] = {}
        while not stopped.is_set():
            for lane in range(lanes):
                if lane not in running:
                    try:
                        number = waiting.popleft()
                    except IndexError:  # another thread took the last one
                        break
                    total = stretches[number].shape[1]
                    running[lane] = number, deque(block_bounds(total, 1, first, True, frames))
                    parts[number] = []
            if not running:
                return
            blocks = [stretches[0][:, :0]] * lanes
            ends = [False] * lanes
            for lane, (number, bounds) in running.items():
                begin, end = bounds.popleft()
                blocks[lane] = stretches[number][:, begin:end]
                ends[lane] = not bounds
            blocks = [np.ascontiguousarray(block) for block in blocks]
            audio = native.run(blocks, ends, [1.0] * lanes)
            for lane, (number, _) in list(running.items()):
                parts[number].append(audio[lane])
                if ends[lane]:
                    done[number] = np.concatenate(parts.pop(number), axis=1)
                    del running[lane]

    run_on_threads(work, threads)
    return [done.pop(number) for number in range(len(stretches))]


def _decode_segments(
    program: Program, recordings: Sequence[Pieces], names: Sequence[str], threads: int
) -> list[Audio]:
    """The audio of recordings of a segmented model, to the end of their last segments. Raises
    ValueError, naming the file, for segments that do not fit together."""
    header = program.header
    frames = -(-(header.segment_length or 0) // header.hop)
    silence = np.zeros((header.channels, frames * header.hop), np.float32)
    results = []
    with contextlib.closing(_segments(program, recordings, threads)) as ready:
        for pieces, name in zip(recordings, names, strict=True):
            joiner = OverlapAdd(header.channels, header.segment_stride or 1)
            audio = [np.zeros((header.channels, 0), np.float32)]
            for piece in pieces:
                count = piece.length if isinstance(piece, Gap) else 1
                segment = silence if isinstance(piece, Gap) else next(ready)
                try:
                    audio += [joiner.push(segment) for _ in range(count)]
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from None
            results.append(np.concatenate([*audio, joiner.flush()], axis=1))
    return results


def _segments(
    program: Program, recordings: Sequence[Pieces], threads: int
) -> Generator[Audio, None, None]:
    """The audio of all segments that are there, in order."""
    coder = SegmentDecoder(program)
    jobs = Ordered(coder, threads, lanes=coder.lanes)
    try:
        for pieces in recordings:
            for piece in pieces:
                if isinstance(piece, Piece):
                    yield from jobs.push(piece)
        yield from jobs.flush()
    finally:
        jobs.close()
