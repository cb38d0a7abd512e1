"""How near does a decode that begins within a recording come to the decode of the whole?

    python benchmarks/evaluate_preroll.py [--models nano_24khz FILE ...] [--json]

Causal models only: their decoder remembers. For each preroll (seconds decoded in front of a range
and dropped) the table gives the worst and the median signal-to-noise ratio of three seconds at
several places of the test recordings, the decode of the whole being the signal.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import machine, parser, publish

from encodec_fast import Codec, Codes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import program_material

PREROLLS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
STARTS = (10.0, 15.5, 20.3, 26.0, 31.7, 38.2, 44.1, 51.0)
SECONDS = 3.0


@dataclass(frozen=True)
class Nearness:
    """Signal-to-noise ratios in dB of one model with one preroll."""

    model: str
    preroll: float
    worst: float
    median: float

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "model": self.model,
            "preroll, s": f"{self.preroll:g}",
            "worst, dB": f"{self.worst:.0f}",
            "median, dB": f"{self.median:.0f}",
        }


def evaluate(codec: Codec) -> list[Nearness]:
    """All prerolls on one recording of a minute."""
    codes = codec.encode(program_material("test", codec.sample_rate, codec.channels, 60.0))
    whole = codec.decode(codes)
    rate = codec.sample_rate / codec.hop
    results = []
    for preroll in PREROLLS:
        ratios = []
        for start in STARTS:
            first, before, count = (round(x * rate) for x in (start, preroll, SECONDS))
            part = codes.codes[0][:, first - before : first + count]
            length = part.shape[1] * codec.hop
            found = codec.decode(Codes([part], None, length, codec.sample_rate, codec.name))
            found = found[:, before * codec.hop :]
            signal = whole[:, first * codec.hop :][:, : found.shape[1]]
            noise = max(float(np.square(found - signal).sum()), 1e-30)
            ratios.append(10 * np.log10(float(np.square(signal).sum()) / noise))
        results.append(Nearness(codec.name, preroll, min(ratios), statistics.median(ratios)))
    return results


def main() -> None:
    """Evaluate and report."""
    options = parser(__doc__)
    options.add_argument("--models", nargs="+", default=["nano_24khz"])
    args = options.parse_args()
    rows = [row for model in args.models for row in evaluate(Codec.load(model))]
    publish(args.json, machine(), {"evaluate_preroll": rows})


if __name__ == "__main__":
    main()
