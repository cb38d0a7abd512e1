"""Does any changed file crash the reader, make it hang, or make it take memory?

    python benchmarks/fuzz_container.py [--files 1000000] [--seed 0] [--json]

Takes the files of tests/vectors and version 0 files of the same models, changes each in one to six
ways (flipped bits, other bytes, pieces that are missing, repeated or of other files, absurd
numbers), and reads what came out: every chunk, with and without the index, and, of one in sixteen,
the samples. Half of the files of version 1 get fitting checksums again, so that what lies behind
these is reached. Allowed are codes, ValueError and EOFError. Run it on a build with sanitizers to
see more (CONTRIBUTING.md).
"""

from __future__ import annotations

import io
import re
import resource
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import machine, parser, publish

from encodec_fast import container
from encodec_fast._native import crc32c
from encodec_fast.chunk_header import Opened
from encodec_fast.codec import Codec
from encodec_fast.segments import Gap

TESTS = Path(__file__).resolve().parents[1] / "tests"
VECTORS = TESTS / "vectors"
KINDS = ("reflect", "segments")
NUMBERS = (0, 1, 127, 128, 255, 256, 16383, 65535, 1 << 20, (1 << 31) - 1, 1 << 35)


@dataclass(frozen=True)
class Run:
    """What became of so many files."""

    files: int
    outcomes: dict[str, int]
    seconds: float
    slowest: float
    peak_mb: float

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "files": f"{self.files:,}",
            "outcomes": ", ".join(f"{name} {n:,}" for name, n in sorted(self.outcomes.items())),
            "seconds": f"{self.seconds:.0f}",
            "slowest, ms": f"{1000 * self.slowest:.0f}",
            "peak memory, MB": f"{self.peak_mb:.0f}",
        }


def seeds(codecs: dict[str, Codec]) -> list[tuple[str, bytes]]:
    """Files by the kind of their model."""
    found = [(path.name.split(".")[0], path.read_bytes()) for path in VECTORS.glob("*.ecdc")]
    wav = np.random.default_rng(1).standard_normal((1, 1000)).astype(np.float32) / 4
    found += [(kind, codec.compress(wav, version=0)) for kind, codec in codecs.items()]
    return sorted(found)


def changed(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """One to six changes."""
    out = bytearray(data)
    # Most headers stay: a damaged one ends the reading of the file.
    low = 13 + int.from_bytes(data[5:9], "big") if rng.integers(0, 8) else 0
    for _ in range(rng.integers(1, 7)):
        at = int(rng.integers(min(low, len(out)), len(out) + 1))
        size = int(rng.integers(1, 40))
        kind = int(rng.integers(0, 8))
        if kind == 0 and at < len(out):
            out[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1 and at < len(out):
            out[at] = int(rng.integers(0, 256))
        elif kind == 2:
            del out[at : at + size]
        elif kind == 3:
            out[at:at] = rng.bytes(size)
        elif kind == 4:
            other = others[int(rng.integers(0, len(others)))]
            begin = int(rng.integers(0, len(other)))
            out[at : at + size] = other[begin : begin + size]
        elif kind == 5:
            out[at : at + 4] = varint(NUMBERS[int(rng.integers(0, len(NUMBERS)))])
        elif kind == 6 and not low:
            digits = [match.span() for match in re.finditer(rb"\d+", bytes(out[:120]))]
            if digits:
                begin, end = digits[int(rng.integers(0, len(digits)))]
                number = NUMBERS[int(rng.integers(0, len(NUMBERS)))] - int(rng.integers(0, 2))
                out[begin:end] = str(number).encode()
                if len(out) > 9 and out[:5] == b"ECDC\x01" and rng.integers(0, 2):
                    size = int.from_bytes(out[5:9], "big") + len(str(number)) - (end - begin)
                    out[5:9] = max(0, size).to_bytes(4, "big")
        else:
            del out[at:]
        if not out:
            break
    return bytes(out)


def varint(value: int) -> bytes:
    """As in docs/format.md."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def with_checksums(data: bytes) -> bytes:
    """The header's checksum, and those of whatever looks like a record in a row from there, made to
    fit."""
    out = bytearray(data)
    if len(out) < 13 or out[:5] != b"ECDC\x01":
        return data
    at = 9 + int.from_bytes(out[5:9], "big") + 4
    if at > len(out):
        return data
    seed = crc32c(bytes(out[: at - 4]))
    out[at - 4 : at] = seed.to_bytes(4, "little")
    while at < len(out) and out[at] in (0xC0, 0xC1, 0xCE):
        begin, values = at, []
        at += 1
        for _ in range({0xC0: 2, 0xC1: 3, 0xCE: 3}[out[begin]]):
            value = shift = 0
            while at < len(out):
                value |= (out[at] & 127) << shift
                shift += 7
                at += 1
                if out[at - 1] < 128:
                    break
            values.append(value)
        if at + 4 > len(out):
            break
        chunk = out[begin] != 0xCE
        size = min(values[1] if chunk else values[2], len(out))
        crc = crc32c(bytes(out[begin:at]), seed)
        if chunk:
            crc = crc32c(bytes(out[at + 4 : at + 4 + size]), crc)
        out[at : at + 4] = crc.to_bytes(4, "little")
        at += 4 + size
        if not chunk and at + 8 <= len(out):
            out[at : at + 4] = crc32c(bytes(out[at - size : at]), seed).to_bytes(4, "little")
            break
    return bytes(out)


def outcome(codec: Codec, data: bytes, live: bool, samples: bool) -> str:
    """What a reader makes of it."""
    try:
        if samples:
            return "samples" if codec.decompress(data).shape[1] else "nothing"
        stream = io.BytesIO(data)
        header = container.read_header(stream, "file")
        recording = codec.open_recording(stream, header, "file", live)
        _, pieces = recording.pieces(0)
        gaps = frames = 0
        for piece in pieces:
            if isinstance(piece, Gap):
                gaps += piece.length
            else:
                frames += piece.codes.shape[1]
        repaired = isinstance(header, Opened) and header.damaged
        return "codes with gaps" if gaps or repaired or recording.damaged else "codes"
    except (ValueError, EOFError) as error:
        return type(error).__name__


def main() -> None:
    """Parse the arguments, change and read, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--files", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=0)
    args = arguments.parse_args()
    warnings.simplefilter("ignore")
    codecs = {kind: Codec.load(VECTORS / f"tiny_{kind}.safetensors") for kind in KINDS}
    files = seeds(codecs)
    others = [data for _, data in files]
    rng = np.random.default_rng(args.seed)
    outcomes: Counter[str] = Counter()
    slowest, started = 0.0, time.perf_counter()
    for number in range(args.files):
        kind, data = files[int(rng.integers(0, len(files)))]
        data = changed(data, others, rng)
        if number % 2:
            data = with_checksums(data)
        begun = time.perf_counter()
        outcomes[outcome(codecs[kind], data, number % 4 < 2, number % 16 == 0)] += 1
        slowest = max(slowest, time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - started
    run = Run(args.files, dict(outcomes), seconds, slowest, peak)
    publish(args.json, machine("numpy"), {f"fuzz_container: seed {args.seed}": [run]})
    sys.exit(0)


if __name__ == "__main__":
    main()
