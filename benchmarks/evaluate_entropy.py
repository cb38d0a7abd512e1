"""What does entropy coding save, and what does a file cost beyond it?

    python benchmarks/evaluate_entropy.py --audio DIR [--model nano_24khz] [--limit N] [--json]

`--audio` is a folder with a MANIFEST.csv (columns path, split, kind). First table: bits per code of
the test recordings, coded as files are, with the language model anew every 10 s; framing is not in
it. Perplexities say how evenly a codebook is used: one that collapsed would be cheap, too, but no
saving. Second table: whole files of a minute of several recordings against the language model's
cross-entropy of their codes, against version 0 (the same language model without restarts, and the
reference's header), and what live chunks of one frame cost.
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from report import machine, parser, publish

from encodec_fast import Codec, _native
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.evaluation.recordings import Setting, find_recordings, read_recording
from encodec_fast.segments import Piece

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import program_material

CodeArray = NDArray[np.uint16]
KEY_SECONDS = 10
MAX_SECONDS = 600.0  # of a recording


@dataclass(frozen=True)
class Saving:
    """Bits per code of recordings of one kind."""

    kbps: float
    kind: str
    minutes: float
    packed: float
    static: float
    lm: float
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
            "perplexity: first, mean, worst codebook": ", ".join(
                f"{value:.0f}" for value in self.perplexity
            ),
        }


@dataclass(frozen=True)
class FileSize:
    """Bytes of files of one minute."""

    kbps: float
    none: int
    static: int
    lm: int
    cross_entropy: float
    version_0: int
    live: int  # lm, a frame per chunk

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
            "lm, a frame per chunk": f"{self.live} ({self.live / self.none:.2f} of none)",
        }


def saving(
    model: EntropyModel, codec: Codec, kbps: float, kind: str, files: list[CodeArray]
) -> Saving:
    """All files of a kind, coded chunk by chunk."""
    n_q = codec.n_q(kbps)
    static = _native.StaticCoder(model.tables)
    coder = _native.LmCoder(model.lm, n_q, 1)
    step = KEY_SECONDS * codec.sample_rate // codec.hop
    sizes = np.zeros(2)
    counts = np.zeros((n_q, codec.codebook_size))
    for codes in files:
        for first in range(0, codes.shape[1], step):
            chunk = np.ascontiguousarray(codes[:n_q, first : first + step])
            coder.reset([0])
            sizes += len(static.encode(chunk)), len(coder.encode([0], [chunk])[0])
        counts += [np.bincount(row, minlength=codec.codebook_size) for row in codes[:n_q]]
    frames = sum(codes.shape[1] for codes in files)
    shares = counts / frames
    entropies = -(shares * np.log2(np.maximum(shares, 1e-30))).sum(axis=1)
    used = 2**entropies
    minutes = frames * codec.hop / codec.sample_rate / 60
    bits = 8 * sizes / (n_q * frames)
    perplexity = (float(used[0]), float(used.mean()), float(used.min()))
    packed = float(codec.codebook_bits)
    return Saving(kbps, kind, minutes, packed, float(bits[0]), float(bits[1]), perplexity)


def file_size(model: EntropyModel, codec: Codec, kbps: float, codes: CodeArray) -> FileSize:
    """Files of one recording."""
    n_q = codec.n_q(kbps)
    codes = np.ascontiguousarray(codes[:n_q])
    length = codes.shape[1] * codec.hop

    def size(entropy: str, chunk: float) -> int:
        file = io.BytesIO()
        writer = codec.piece_writer(n_q, entropy, chunk=chunk)(file)
        writer.write(Piece(codes, None, True))
        writer.finish(length)
        return len(file.getvalue())

    coder = _native.LmCoder(model.lm, n_q, 1)
    bits = 0.0
    step = KEY_SECONDS * codec.sample_rate // codec.hop
    for first in range(0, codes.shape[1], step):
        chunk = np.ascontiguousarray(codes[:, first : first + step])
        coder.reset([0])
        (p,) = coder.probabilities([0], [chunk])
        bits -= np.log2(np.take_along_axis(p, chunk.T[:, :, None].astype(np.int64), 2)).sum()
    coder.reset([0])
    header = len(f'{{"m": "{codec.name}", "al": {length}, "nc": {n_q}, "lm": true}}') + 9
    version_0 = header + len(coder.encode([0], [codes])[0])
    sizes = [size(entropy, KEY_SECONDS) for entropy in ("none", "static", "lm")]
    live = size("lm", codec.hop / codec.sample_rate)
    return FileSize(kbps, *sizes, bits / 8, version_0, live)


def main() -> None:
    """Parse the arguments, code, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--audio", type=Path, required=True)
    arguments.add_argument("--model", default="nano_24khz", help="a name or a program file")
    arguments.add_argument("--limit", type=int, default=0, help="files per kind (0: all)")
    options = arguments.parse_args()
    facts = machine()
    codec = Codec.load(options.model)
    model = codec.entropy_model
    if model is None or model.lm is None or model.tables is None or not codec.causal:
        raise SystemExit(f"{options.model} is no causal model with tables and a language model")
    by_kind: dict[str, list[CodeArray]] = {"all": []}
    setting = Setting(codec.sample_rate, codec.channels)
    for path, _, kind in find_recordings(options.audio, limit=options.limit or None):
        wave = read_recording(path, setting, MAX_SECONDS)
        codes = codec.encode(wave, bandwidth=None).codes[0]
        by_kind["all"].append(codes)
        by_kind.setdefault(kind, []).append(codes)
    savings = [
        saving(model, codec, kbps, kind, files)
        for kbps in codec.bandwidths
        for kind, files in by_kind.items()
    ]
    minute = codec.encode(program_material("test", codec.sample_rate, codec.channels, 60.0), None)
    sizes = [file_size(model, codec, kbps, minute.codes[0]) for kbps in codec.bandwidths]
    title = f"evaluate_entropy: {codec.name}, {len(by_kind['all'])} recordings"
    publish(
        options.json,
        facts,
        {f"{title}, bits per code": savings, "evaluate_entropy: files of 60 s": sizes},
    )


if __name__ == "__main__":
    main()
