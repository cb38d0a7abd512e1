"""How fast is coding many files on one core, against coding one by one and in padded batches?

    python benchmarks/bench_many.py [--models encodec_24khz encodec_48khz] [--files 16] [--json]

`codec.encode_many` on one thread, whose codes are those of every file alone, against the PyPI
package `encodec` with one file (what a file costs there, however many there are) and transformers'
EncodecModel with the files as one batch. All have the same random weights and one thread; every
repetition times each in turn. Peers: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants import native_codec, random_model, reference, transformers_model
from report import machine, parser, publish
from timing import ratio_cells, timed

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import program_material


@dataclass(frozen=True)
class Rate:
    """Seconds that one file takes, per repetition: a peer's and ours."""

    model: str
    files: int
    file_seconds: float
    peer: str
    peer_seconds: list[float]
    our_seconds: list[float]

    def cells(self) -> dict[str, str]:
        """A row: both rates as multiples of real time, their ratio and its range."""
        return {
            "model": self.model,
            "files": f"{self.files} of {self.file_seconds:g} s",
            "peer": self.peer,
            "peer, x real time": f"{self.file_seconds / statistics.median(self.peer_seconds):.1f}",
            "ours, x real time": f"{self.file_seconds / statistics.median(self.our_seconds):.1f}",
            **ratio_cells(self.peer_seconds, self.our_seconds),
        }


def measure(
    name: str, files: int, duration: float, bandwidth: float, repetitions: int
) -> list[Rate]:
    """Time the three ways to encode `files` different recordings."""
    model = random_model(name)
    codec, hf = native_codec(model), transformers_model(model)
    material = program_material("test", codec.sample_rate, codec.channels, files * duration)
    wavs = np.split(material, files, axis=1)
    batch = torch.from_numpy(np.stack(wavs))
    one = reference(model, bandwidth).encode

    @torch.inference_mode()
    def many_by_transformers() -> Any:
        return hf.encode(batch, bandwidth=bandwidth)

    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "encodec, one file": (lambda: one(wavs[0]), 1),
        f"transformers, batch of {files}": (many_by_transformers, files),
        "ours": (lambda: codec.encode_many(wavs, bandwidth), files),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for repetition in range(repetitions + 1):
        for way, (function, count) in ways.items():
            elapsed = timed(function)[0] / count
            if repetition:  # the first one warms up
                times[way].append(elapsed)
    ours = times.pop("ours")
    return [Rate(name, files, duration, peer, theirs, ours) for peer, theirs in times.items()]


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    choices = ["encodec_24khz", "encodec_48khz"]
    arguments.add_argument("--models", nargs="+", default=choices[:1], choices=choices)
    arguments.add_argument("--files", type=int, default=16)
    arguments.add_argument("--seconds", type=float, default=10.0, help="length of each file")
    arguments.add_argument("--bandwidth", type=float, default=6.0, help="kbps")
    arguments.add_argument("--repetitions", type=int, default=5)
    args = arguments.parse_args()
    torch.set_num_threads(1)
    facts = machine("torch", "encodec", "transformers")
    results: list[Rate] = []
    for name in args.models:
        results += measure(name, args.files, args.seconds, args.bandwidth, args.repetitions)
    settings = f"encode at {args.bandwidth:g} kbps, one thread, {args.repetitions} repetitions"
    publish(args.json, facts, {f"bench_many: {settings}": results})


if __name__ == "__main__":
    main()
