"""The audio of a recording's codes, or of a range of it, block by block."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np

from encodec_fast._native import Audio
from encodec_fast.blocks import BlockDecoder
from encodec_fast.container import Recording
from encodec_fast.program import Program
from encodec_fast.segments import Gap

# Decoded before a range, and dropped: what the decoder remembers fades (docs/format.md has the
# measurement).
PREROLL_SECONDS = 2.0


def decoded(
    program: Program,
    recording: Recording,
    name: str,
    *,
    threads: int = 1,
    start: float = 0.0,
    duration: float | None = None,
    exact: bool = False,
    strict: bool = False,
    live: bool = False,
) -> Iterator[Audio]:
    """Samples float32 [channels, n] from `start` on, for `duration` (None: to the end), in seconds.

    Lost frames are silent. Without `exact` a model without segments begins PREROLL_SECONDS earlier,
    which differs a little from the decode of the whole recording. live: blocks hold whole frames as
    soon as they are there, so that the last one may reach beyond the recording's end. Raises
    ValueError for a range that does not begin in the recording, for damage where `strict`, and what
    the recording raises.
    """
    about = program.header
    unit = about.segment_stride or about.hop  # samples
    first, last = _range(start, duration, about.sample_rate)
    length = recording.audio_length
    if length is not None:
        _check_start(first, length, start, about.sample_rate, name)
        last = length if last is None else min(last, length)
    begin = 0
    if about.segment_length is not None:
        begin = max(0, first // unit - 1)
    elif not exact:
        begin = max(0, first // unit - round(PREROLL_SECONDS * about.sample_rate / unit))
    # Without the length, which is known last, the end of the last frame must not be handed out yet.
    holds = length is None and not live
    held = np.zeros((about.channels, 0), np.float32)
    held_end = first
    position = begin * unit  # of the next sample
    blocks = _blocks(program, recording, begin, threads, live)
    for block in blocks:
        audio = block[:, max(0, first - position) :]
        at = max(first, position)
        position += block.shape[1]
        if strict and recording.damaged:
            break
        if last is not None:
            audio = audio[:, : max(0, last - at)]
        if holds:
            held_end += audio.shape[1]
            audio = np.concatenate([held, audio], axis=1)
            # Lost segments at the end, which are as long as any, come when the end is known.
            if (length := recording.audio_length) is not None and held_end > length:
                audio = audio[:, : max(0, audio.shape[1] - (held_end - length))]
                held_end = length
            kept = min(about.hop, audio.shape[1])
            audio, held = np.split(audio, [audio.shape[1] - kept], axis=1)
        if audio.shape[1]:
            yield audio
        # The recording may end in the last frame of what is held.
        if last is not None and position - (about.hop if holds else 0) >= last:
            break
    blocks.close()
    if holds:
        length = recording.audio_length
        if length is not None:
            _check_start(first, length, start, about.sample_rate, name)
            held = held[:, : max(0, held.shape[1] - max(0, held_end - length))]
        if held.shape[1]:
            yield held


def _blocks(
    program: Program, recording: Recording, begin: int, threads: int, live: bool
) -> Generator[Audio, None, None]:
    """Samples from frame (segment) `begin` on."""
    segmented = program.header.segment_length is not None
    at, pieces = recording.pieces(begin)
    with BlockDecoder(program, threads, recording.start, live, begin > 0) as decoder:
        for piece in pieces:
            gap = isinstance(piece, Gap)
            count = piece.length if isinstance(piece, Gap) else piece.codes.shape[1]
            surplus, at = begin - at, at + (1 if segmented and not gap else count)
            if surplus > 0:
                if segmented or surplus >= count:
                    continue
                count -= surplus
            if isinstance(piece, Gap):
                yield decoder.skip(count)
            else:
                codes = np.ascontiguousarray(piece.codes[:, -count:])
                yield decoder.push(piece._replace(codes=codes))
        yield decoder.flush()


def _range(start: float, duration: float | None, rate: int) -> tuple[int, int | None]:
    """First sample and end of a range in seconds."""
    for name, value in (("start", start), ("duration", duration)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and 0 <= value < 1e9):
            raise ValueError(f"{name}: expected seconds >= 0, found {value!r}")
    first = round(start * rate)
    return first, None if duration is None else first + round(duration * rate)


def _check_start(first: int, length: int, start: float, rate: int, name: str) -> None:
    if first and first >= length:
        raise ValueError(
            f"start: expected less than the {length / rate:.3f} s of {name}, found {start:g}"
        )
