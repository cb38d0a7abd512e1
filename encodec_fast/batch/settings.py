"""What a run of tokenisation is asked to do, checked before it begins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from encodec_fast.batch.formats import FORMATS
from encodec_fast.batch.sources import AUDIO_COLUMN
from encodec_fast.chunk_header import ENTROPIES

SHARD_SIZE = 1000
# The header of a safetensors shard has 64 MiB: this many items have 3355 bytes each.
MAX_SHARD_SIZE = 20_000
MAX_THREADS = 1024


@dataclass(frozen=True)
class Settings:
    """How a data set is tokenised.

    model: a name or a program file; bandwidth: kbps, None for all codebooks; format: a name in
    FORMATS; shard: (i, n), the job i of an array of n, from 0; shard_size: items of an output file
    (of a group of them, in formats of a file an item); threads: of this machine's; audio_column: of
    tables; device: see Codec.load; entropy: the mode of .ecdc files. Threads and device do not
    change what comes out. Raises ValueError for values that no run can have.
    """

    model: str
    bandwidth: float | None = 6.0
    format: str = "npy"
    shard: tuple[int, int] = (0, 1)
    shard_size: int = SHARD_SIZE
    threads: int = 1
    audio_column: str = AUDIO_COLUMN
    device: str = "cpu"
    entropy: str = "none"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"format: expected {', '.join(FORMATS)}, found {self.format!r}")
        if self.entropy not in ENTROPIES:
            raise ValueError(f"entropy: expected {', '.join(ENTROPIES)}, found {self.entropy!r}")
        if self.entropy != "none" and self.format != "ecdc":
            raise ValueError(
                f"entropy: {self.entropy} is for format ecdc alone, expected none with "
                f"{self.format}"
            )
        for name, most in (("shard_size", MAX_SHARD_SIZE), ("threads", MAX_THREADS)):
            found = getattr(self, name)
            if not _is_integer(found) or not 1 <= found <= most:
                raise ValueError(f"{name}: expected an integer in 1..{most}, found {found!r}")
        shard = self.shard
        if (
            not isinstance(shard, tuple)
            or len(shard) != 2
            or not all(map(_is_integer, shard))
            or not 0 <= shard[0] < shard[1] <= 99_999
        ):
            raise ValueError(
                f"shard: expected (i, n) with i in 0..n-1 (from 0), n at most 99999, found {shard}"
            )

    @property
    def job(self) -> str:
        """What the files of this job of an array have in their names; "" for a run on its own."""
        index, count = self.shard
        return "" if count == 1 else f"-{index:05d}-of-{count:05d}"


def available_threads() -> int:
    """A thread for each core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
