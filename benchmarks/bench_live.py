"""How many live streams does one core hold in real time?

    python benchmarks/bench_live.py [--models encodec_24khz ...] [--steps 200] [--json]

B streams advance together, one frame each per step (`codec.stream_encoder(batch=B)` and
`stream_decoder`), encoding, decoding, or both in turn. The peer is the clock: the table gives the
largest B for which 99 of 100 steps take less than the frame's duration. B is doubled until that
fails and then narrowed down to within an eighth. One thread; random weights, in float32 and in
bfloat16.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from contestants import codecs_by_weights, random_model
from report import machine, parser, publish
from timing import p99, timed

from encodec_fast.codec import Codec
from encodec_fast.models.config import CONFIGS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import program_material

WEIGHTS = ["float32", "bfloat16"]
DIRECTIONS = ("encode", "decode", "both")
# Steps before those that count: allocations, and the weights' way into the caches.
COLD = 5
# Distinct frames that the steps go through, each stream from one of its own.
FRAMES = 75


@dataclass(frozen=True)
class Capacity:
    """Seconds of each step, by number of streams that were tried in one direction of one model."""

    model: str
    frame_seconds: float
    weights: str
    direction: str
    steps: dict[int, list[float]]

    def holds(self, streams: int) -> bool:
        """Whether 99 of 100 steps were in time."""
        return p99(self.steps[streams]) < self.frame_seconds

    def cells(self) -> dict[str, str]:
        """A row: the most streams, the steps they took and what a single one takes."""
        most = max((s for s in self.steps if self.holds(s)), default=0)
        steps = self.steps[most or 1]
        return {
            "model": self.model,
            "frame, ms": f"{1e3 * self.frame_seconds:.2f}",
            "weights": self.weights,
            "direction": self.direction,
            "streams": f"**{most}**",
            "their step, median, ms": f"{1e3 * statistics.median(steps):.2f}",
            "p99, ms": f"{1e3 * p99(steps):.2f}",
            "one stream's step, median, ms": f"{1e3 * statistics.median(self.steps[1]):.2f}",
        }


def stepper(
    codec: Codec, direction: str, bandwidth: float, streams: int
) -> Callable[[int], object]:
    """A function that advances `streams` streams by one frame, given the step's number."""
    hop = codec.hop
    encoder = codec.stream_encoder(bandwidth, streams, "low_latency")
    decoder = codec.stream_decoder(streams, "low_latency")
    seconds = (FRAMES + streams) * hop / codec.sample_rate
    wav = program_material("test", codec.sample_rate, codec.channels, seconds)
    audio = [
        np.stack([wav[:, (s + f) * hop : (s + f + 1) * hop] for s in range(streams)])
        for f in range(FRAMES)
    ]
    rng = np.random.default_rng(0)
    shape = (FRAMES, streams, codec.n_q(bandwidth), 1)
    codes = rng.integers(0, codec.codebook_size, shape).astype(np.uint16)
    return {
        "encode": lambda step: encoder.push(audio[step % FRAMES]),
        "decode": lambda step: decoder.push(codes[step % FRAMES]),
        "both": lambda step: decoder.push(encoder.push(audio[step % FRAMES])),
    }[direction]


def capacity(codec: Codec, weights: str, direction: str, bandwidth: float, steps: int) -> Capacity:
    """Double the streams until they are late, then halve the gap until it is an eighth."""
    result = Capacity(codec.name, codec.hop / codec.sample_rate, weights, direction, {})

    def holds(streams: int) -> bool:
        step = stepper(codec, direction, bandwidth, streams)
        times = [timed(step, number)[0] for number in range(steps + COLD)]
        result.steps[streams] = times[COLD:]
        return result.holds(streams)

    low, high = 0, 1
    while holds(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return result


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    causal = [name for name, config in CONFIGS.items() if config.causal]
    arguments.add_argument("--models", nargs="+", default=causal, choices=causal)
    arguments.add_argument("--steps", type=int, default=200, help="per number of streams")
    arguments.add_argument("--bandwidth", type=float, default=6.0, help="kbps")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    facts = machine()
    results = [
        capacity(codec, weights, direction, args.bandwidth, args.steps)
        for name in args.models
        for weights, codec in codecs_by_weights(random_model(name), WEIGHTS).items()
        for direction in DIRECTIONS
    ]
    title = (
        f"bench_live: streams on one core at {args.bandwidth:g} kbps, one frame per step, "
        f"{args.steps} steps"
    )
    publish(args.json, facts, {title: results})


if __name__ == "__main__":
    main()
