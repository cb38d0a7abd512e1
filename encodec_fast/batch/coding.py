"""Items to tokens on one thread: several at once, block by block, in constant memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from encodec_fast.audio import AudioReader, Float32
from encodec_fast.batch.items import Item, read_extra
from encodec_fast.batch.tokens import Tokens
from encodec_fast.many import RECORDING_LANES, Recording, encode_streams
from encodec_fast.program import Header, Program

# Items among which the longest come first. They are coded in this order, not in that of the list,
# so that lanes and threads end together; what they become does not depend on it.
WINDOW = 1024


@dataclass(frozen=True)
class Failure:
    """An item that could not be coded, and why."""

    key: str
    source: str
    reason: str


class _Reading(Recording):
    """An item on its lane."""

    def __init__(self, program: Program, item: Item, chunks: Iterable[Float32], lanes: int) -> None:
        self.item = item
        super().__init__(program, 0, chunks, lanes)


def code_items(
    program: Program,
    n_q: int,
    items: Iterable[Item],
    lanes: int = RECORDING_LANES,
    stopped: threading.Event | None = None,
    read: Callable[[Item], Iterable[Float32]] | None = None,
) -> Iterator[Tokens | Failure]:
    """The tokens of each item, or why there are none, in the order in which they end.

    n_q: codebooks; items: taken one by one as lanes get free, so that several threads may share an
    iterator that is safe for that; lanes: items under way at once, where the model streams. Audio
    is read as AudioReader does, of any rate and channel count; the codes are those of the whole
    recording alone. Ends early when `stopped` is set. read: gives an item's samples, where
    something else than this thread reads it, as read_item does.
    """
    following = iter(items)
    chunks_of = read or (lambda item: read_item(item, program.header))

    def reading() -> Recording | None:
        item = next(following, None)
        return None if item is None else _Reading(program, item, chunks_of(item), lanes)

    stopped = stopped or threading.Event()
    for recording in encode_streams(program, n_q, lanes, reading, stopped):
        assert isinstance(recording, _Reading)
        yield _outcome(program, recording)


def longest_first(items: list[Item]) -> Iterator[Item]:
    """The items, in each window the longest before the others, by what their size tells."""
    for start in range(0, len(items), WINDOW):
        yield from sorted(items[start : start + WINDOW], key=lambda item: -item.seconds)


def read_item(item: Item, header: Header) -> Iterator[Float32]:
    """The samples of an item, float32 [channels, about a second] each. Raises OSError or ValueError
    whatever is wrong with it: one item does not end a run, nor does a library that a file brings to
    an error of its own."""
    try:
        with (
            item.location.open() as source,
            AudioReader(source, header.sample_rate, header.channels) as reader,
        ):
            yield from reader.blocks()
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"{item.source}: {type(error).__name__}: {error}") from error


def _outcome(program: Program, recording: _Reading) -> Tokens | Failure:
    item, header = recording.item, program.header
    error: Exception | None = recording.error
    extra: dict[str, bytes] = {}
    if error is None:
        try:
            extra = read_extra(item)
        except (OSError, ValueError) as found:
            error = found
    if error is not None:
        return Failure(item.key, item.source, _reason(error, item.source))
    segment_frames: list[int] = []
    for piece in recording.pieces:
        if piece.start:
            segment_frames.append(0)
        segment_frames[-1] += piece.codes.shape[1]
    scales = [piece.scale for piece in recording.pieces if piece.start]
    codes = np.concatenate([piece.codes for piece in recording.pieces], axis=1)
    recording.pieces.clear()  # those of a long one are as large again
    return Tokens(
        key=item.key,
        codes=codes,
        segment_frames=tuple(segment_frames),
        scales=np.array(scales, np.float32) if header.normalize else None,
        audio_length=recording.length,
        sample_rate=header.sample_rate,
        model=header.name,
        model_hash=program.hash,
        source=item.source,
        extra=extra,
    )


def _reason(error: Exception, source: str) -> str:
    """The message of an error on one line, without the file's name, which stands beside it."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
    return (
        " ".join(text.removeprefix("<stream>: ").removeprefix(f"{source}: ").split())
        or type(error).__name__
    )
