"""How large are tokens in each format, and how fast are they written and read?

    python benchmarks/bench_token_formats.py [--model nano_24khz] [--bandwidth 6] [--items 2000]
        [--repetitions 5] [--json]

Items of 10 s hold the codes of real recordings, where the checkout has them beside it; when all
have had their turn, their frames in another order, so that no compressor finds them again. Formats
of a file an item write a folder of them. Reading goes through `load_tokens`, with the page cache
warm. The peer is numpy's archive of the same codes, one array a name, uncompressed. Parquet needs
pyarrow.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import machine, parser, publish

from encodec_fast import Codec
from encodec_fast.batch.formats import FORMATS
from encodec_fast.batch.names import encoded_key
from encodec_fast.batch.reading import load_tokens
from encodec_fast.batch.tokens import Tokens

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import program_material

SECONDS = 10.0
DISTINCT = 60  # recordings that are coded


@dataclass(frozen=True)
class Cost:
    """One format: bytes in all, hours of audio in them, seconds of each write and read."""

    format: str
    size: int
    hours: float
    write: list[float]
    read: list[float]
    bits: float

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "format": self.format,
            "MB per hour": f"{self.size / self.hours / 1e6:.2f}",
            "bits per code": f"{self.bits:.2f}",
            "written, hours per s": f"{self.hours / statistics.median(self.write):.2g}",
            "read, hours per s": f"{self.hours / statistics.median(self.read):.2g}",
        }


def coded_items(codec: Codec, bandwidth: float, count: int) -> list[Tokens]:
    """Items of SECONDS each."""
    samples = int(SECONDS * codec.sample_rate)
    wav = program_material("test", codec.sample_rate, codec.channels, SECONDS * DISTINCT)
    clips = [wav[:, at : at + samples] for at in range(0, wav.shape[1], samples)]
    rng = np.random.default_rng(1)
    items = []
    coded = codec.encode_many(clips, bandwidth)
    for number in range(count):
        codes = coded[number % len(coded)]
        joined = np.concatenate(codes.codes, axis=1)
        if number >= len(coded):
            joined = joined[:, rng.permutation(joined.shape[1])]
        items.append(
            Tokens(
                key=f"recordings/{number:06d}",
                codes=joined,
                segment_frames=tuple(part.shape[1] for part in codes.codes),
                scales=None if codes.scales is None else np.array(codes.scales, np.float32),
                audio_length=codes.audio_length,
                sample_rate=codes.sample_rate,
                model=codes.model,
                model_hash=codec.program.hash,
                source=f"recordings/{number:06d}.flac",
            )
        )
    return items


def write_all(name: str, items: list[Tokens], folder: Path, codec: Codec) -> None:
    """All items, in one file or a file each."""
    format = FORMATS[name]
    if not format.per_item:
        format.write(items, folder / f"tokens{format.suffix}", codec)
        return
    (folder / "recordings").mkdir(exist_ok=True)
    for tokens in items:
        format.write([tokens], folder / (encoded_key(tokens.key) + format.suffix), codec)


def write_archive(items: list[Tokens], folder: Path) -> None:
    """The peer."""
    np.savez(folder / "tokens.npz", **{tokens.key: tokens.codes for tokens in items})


def read_archive(folder: Path) -> None:
    """All of what write_archive wrote."""
    with np.load(folder / "tokens.npz") as archive:
        for name in archive.files:
            archive[name]


def measure(
    name: str,
    items: list[Tokens],
    repetitions: int,
    write: Callable[[Path], None],
    read: Callable[[Path], None],
) -> Cost:
    """Writes to a new folder each time, and reads it."""
    times: tuple[list[float], list[float]] = ([], [])
    size = 0
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as scratch:
            for call, seconds in zip((write, read), times, strict=True):
                start = time.perf_counter()
                call(Path(scratch))
                seconds.append(time.perf_counter() - start)
            size = sum(p.stat().st_size for p in Path(scratch).rglob("*") if p.is_file())
    codes = sum(tokens.codes.size for tokens in items)
    hours = sum(tokens.audio_length / tokens.sample_rate for tokens in items) / 3600
    return Cost(name, size, hours, *times, bits=8 * size / codes)


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", default="nano_24khz", help="a name or a program file")
    arguments.add_argument("--bandwidth", type=float, default=6.0)
    arguments.add_argument("--items", type=int, default=2000)
    arguments.add_argument("--repetitions", type=int, default=5)
    args = arguments.parse_args()
    facts = machine("numpy", "pyarrow")
    codec = Codec.load(args.model)
    items = coded_items(codec, args.bandwidth, args.items)
    costs = [
        measure(
            name,
            items,
            args.repetitions,
            lambda folder, name=name: write_all(name, items, folder, codec),
            lambda folder: [tokens.codes for tokens in load_tokens(folder, codec)],
        )
        for name in FORMATS
        if name != "parquet" or "pyarrow" in facts
    ]
    costs.append(
        measure(
            "numpy.savez",
            items,
            args.repetitions,
            lambda folder: write_archive(items, folder),
            read_archive,
        )
    )
    title = (
        f"bench_token_formats: {codec.name}, {args.bandwidth:g} kbps, {len(items)} items of 10 s"
    )
    publish(args.json, facts, {f"{title}, {args.repetitions} repetitions": costs})


if __name__ == "__main__":
    main()
