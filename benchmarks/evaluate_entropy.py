"""What does entropy coding save, and what does a file cost beyond it?

    python benchmarks/evaluate_entropy.py --audio DIR [--model nano_24khz] [--entropy FILE]
        [--limit N] [--json]

`--audio` is a folder with a MANIFEST.csv (columns path, split, kind). First table: bits of the test
recordings, coded as files are, with the language model anew every 10 s or in every segment; framing
is not in it. Perplexities say how evenly a codebook is used: one that collapsed would be cheap,
too, but no saving. Second table: these per codebook. Third table: whole files of a minute of
several recordings against the language model's cross-entropy of their codes, against version 0 (the
same language model without restarts in a segment, and the reference's header), and what live chunks
of one frame cost. `--entropy` judges an entropy model that is not beside its program yet.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import machine, parser, publish

from encodec_fast import Codec, Codes, _native
from encodec_fast.chunk_codes import KEY_SECONDS
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.evaluation.recordings import Setting, find_recordings, read_recording
from encodec_fast.segments import Piece
from encodec_fast.training.static_tables import count_codes, perplexity

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import program_material

CodeArray = NDArray[np.uint16]
MAX_SECONDS = 600.0  # of a recording


@dataclass
class Coded:
    """Recordings of one kind: their segments' codes (one segment each, where a model has none), and
    their length in seconds."""

    segments: list[CodeArray] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, segments: list[CodeArray], seconds: float) -> None:
        """One recording more."""
        self.segments += segments
        self.seconds += seconds


@dataclass(frozen=True)
class Saving:
    """What recordings of one kind cost: bits per code, and kbit per second of sound."""

    kbps: float
    kind: str
    minutes: float
    packed: float
    static: float
    lm: float
    packed_rate: float
    lm_rate: float
    perplexity: tuple[float, float, float]  # first, mean, worst codebook

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "kbps": f"{self.kbps:g}",
            "kind": self.kind,
            "minutes": f"{self.minutes:.1f}",
            "packed": f"{self.packed:g}",
            "static": f"{self.static:.2f}",
            "saved": f"{1 - self.static / self.packed:.1%}",
            "lm": f"{self.lm:.2f}",
            "saved ": f"**{1 - self.lm / self.packed:.1%}**",
            "lm, of packed kbit/s": f"{self.lm_rate:.2f} of {self.packed_rate:.2f}",
            "perplexity: first, mean, worst codebook": ", ".join(
                f"{value:.0f}" for value in self.perplexity
            ),
        }


@dataclass(frozen=True)
class Use:
    """How one codebook, counted from 1, is used: perplexity per kind, and the share of its entries
    that occur."""

    codebook: int
    perplexity: dict[str, float]
    alive: float

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        kinds = {f"perplexity, {kind}": f"{value:.0f}" for kind, value in self.perplexity.items()}
        return {"codebook": f"{self.codebook}", **kinds, "entries that occur": f"{self.alive:.1%}"}


@dataclass(frozen=True)
class FileSize:
    """Bytes of files of one minute."""

    kbps: float
    none: int
    static: int
    lm: int
    cross_entropy: float
    version_0: int
    live: int | None  # lm, a frame per chunk; of a model with live streams

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "kbps": f"{self.kbps:g}",
            "none, bytes": f"{self.none}",
            "static": f"{self.static}",
            "lm": f"{self.lm}",
            "cross-entropy": f"{self.cross_entropy:.0f}",
            "lm above it": f"**{self.lm / self.cross_entropy - 1:.2%}**",
            "lm / version 0": f"{self.lm / self.version_0:.3f}",
            "lm, a frame per chunk": "no live streams"
            if self.live is None
            else f"{self.live} ({self.live / self.none:.2f} of none)",
        }


def key_chunks(segments: list[CodeArray], n_q: int, codec: Codec) -> Iterator[CodeArray]:
    """The codes that are coded together: the language model starts anew with each."""
    step = round(KEY_SECONDS * codec.sample_rate / codec.hop)
    for codes in segments:
        for first in range(0, codes.shape[1], step):
            yield np.ascontiguousarray(codes[:n_q, first : first + step])


def counts_of(coded: Coded, codec: Codec) -> NDArray[np.int64]:
    """How often each entry of each codebook occurs, int64 [K, entries]."""
    return count_codes(np.concatenate(coded.segments, axis=1), codec.codebook_size)


def saving(model: EntropyModel, codec: Codec, kbps: float, kind: str, coded: Coded) -> Saving:
    """All recordings of a kind, coded chunk by chunk."""
    n_q = codec.n_q(kbps)
    static = _native.StaticCoder(model.tables)
    coder = _native.LmCoder(model.lm, n_q, 1)
    bits = np.zeros(2)
    for chunk in key_chunks(coded.segments, n_q, codec):
        coder.reset([0])
        bits += 8 * len(static.encode(chunk)), 8 * len(coder.encode([0], [chunk])[0])
    codes = n_q * sum(segment.shape[1] for segment in coded.segments)
    packed = float(codec.codebook_bits)
    used = perplexity(counts_of(coded, codec)[:n_q])
    return Saving(
        kbps=kbps,
        kind=kind,
        minutes=coded.seconds / 60,
        packed=packed,
        static=float(bits[0] / codes),
        lm=float(bits[1] / codes),
        packed_rate=packed * codes / coded.seconds / 1000,
        lm_rate=float(bits[1] / coded.seconds / 1000),
        perplexity=(float(used[0]), float(used.mean()), float(used.min())),
    )


def uses(codec: Codec, by_kind: dict[str, Coded]) -> list[Use]:
    """The use of every codebook."""
    counts = {kind: counts_of(coded, codec) for kind, coded in by_kind.items()}
    found = {kind: perplexity(values) for kind, values in counts.items()}
    return [
        Use(k + 1, {kind: float(values[k]) for kind, values in found.items()}, float(alive))
        for k, alive in enumerate((counts["all"] > 0).mean(axis=1))
    ]


def file_size(model: EntropyModel, codec: Codec, kbps: float, recording: Codes) -> FileSize:
    """Files of one recording."""
    n_q = codec.n_q(kbps)
    scales = recording.scales or [None] * len(recording.codes)
    segments = [np.ascontiguousarray(codes[:n_q]) for codes in recording.codes]
    length = recording.audio_length

    def size(entropy: str, chunk: float) -> int:
        file = io.BytesIO()
        writer = codec.piece_writer(n_q, entropy, chunk=chunk)(file)
        for codes, scale in zip(segments, scales, strict=True):
            writer.write(Piece(codes, scale, True))
        writer.finish(length)
        return len(file.getvalue())

    coder = _native.LmCoder(model.lm, n_q, 1)
    bits = 0.0
    for chunk in key_chunks(segments, n_q, codec):
        coder.reset([0])
        (p,) = coder.probabilities([0], [chunk])
        bits -= np.log2(np.take_along_axis(p, chunk.T[:, :, None].astype(np.int64), 2)).sum()
    version_0 = len(f'{{"m": "{codec.name}", "al": {length}, "nc": {n_q}, "lm": true}}') + 9
    for codes in segments:
        coder.reset([0])
        version_0 += len(coder.encode([0], [codes])[0]) + (4 if codec.normalize else 0)
    sizes = [size(entropy, KEY_SECONDS) for entropy in ("none", "static", "lm")]
    live = size("lm", codec.hop / codec.sample_rate) if codec.causal else None
    return FileSize(kbps, *sizes, bits / 8, version_0, live)


def main() -> None:
    """Parse the arguments, code, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--audio", type=Path, required=True)
    arguments.add_argument("--model", default="nano_24khz", help="a name or a program file")
    arguments.add_argument("--entropy", type=Path, help="an entropy model; default: the model's")
    arguments.add_argument("--limit", type=int, default=0, help="files per kind (0: all)")
    options = arguments.parse_args()
    facts = machine()
    codec = Codec.load(options.model)
    if options.entropy is not None:
        codec = Codec(codec.program, entropy_file=options.entropy)
    model = codec.entropy_model
    if model is None or model.lm is None or model.tables is None:
        raise SystemExit(f"{options.model} has no entropy model with tables and a language model")
    by_kind: dict[str, Coded] = {"all": Coded()}
    setting = Setting(codec.sample_rate, codec.channels)
    count = 0
    for path, _, kind in find_recordings(options.audio, limit=options.limit or None):
        wave = read_recording(path, setting, MAX_SECONDS)
        segments = codec.encode(wave, bandwidth=None).codes
        for name in ("all", kind):
            by_kind.setdefault(name, Coded()).add(segments, wave.shape[1] / codec.sample_rate)
        count += 1
    savings = [
        saving(model, codec, kbps, kind, coded)
        for kbps in codec.bandwidths
        for kind, coded in by_kind.items()
    ]
    minute = codec.encode(program_material("test", codec.sample_rate, codec.channels, 60.0), None)
    sizes = [file_size(model, codec, kbps, minute) for kbps in codec.bandwidths]
    publish(
        options.json,
        facts,
        {
            f"evaluate_entropy: {codec.name}, {count} recordings, bits per code": savings,
            f"evaluate_entropy: {codec.name}, use of the codebooks": uses(codec, by_kind),
            f"evaluate_entropy: {codec.name}, files of 60 s": sizes,
        },
    )


if __name__ == "__main__":
    main()
