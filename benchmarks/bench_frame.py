"""How long does one frame per call take, against PyTorch and against the frame's own duration?

    python benchmarks/bench_frame.py [--frames 200] [--rounds 5] [--json]

Streams that start with low latency: every push is one frame and gives one frame. First at 24 kHz
(encodec_24khz, 320 samples), encoder and decoder in turn as in a call, and the encoder alone,
against the PyPI package `encodec` with the same random weights, called with the same 320 samples
(it has no streams, so this is its time, not its result). Then causal 48 kHz stereo at full size
(stereo_48khz_large), which the peer lacks, encoder and decoder in turn. One thread; weights in
float32 and in bfloat16. The loops take turns in rounds of `--frames` calls; ratios are medians over
rounds of the rounds' medians, percentiles are over all calls. Peers: benchmarks/requirements.txt.
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
from contestants import codecs_by_weights, random_model, reference_model
from report import machine, parser, publish
from timing import p99, ratio_cells, timed

from encodec_fast.codec import Codec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import FloatArray, program_material

WEIGHTS = ["float32", "bfloat16"]
# Calls at the start of a round that are not counted: another loop's weights fill the caches.
COLD = 5

Rounds = list[list[float]]  # seconds of each call, by round
Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]


@dataclass(frozen=True)
class Calls:
    """Seconds of each call in one loop, by round, and the peer's where there is one."""

    model: str
    frame_seconds: float
    weights: str
    loop: str
    call: str
    our_seconds: Rounds
    peer_seconds: Rounds | None

    def cells(self) -> dict[str, str]:
        """A row: the median and the 99th percentile, and both against the frame's duration."""
        every = [seconds for round_ in self.our_seconds for seconds in round_]
        middle, late = statistics.median(every), p99(every)
        peer = {"encodec, ms": "", "ratio": "", "range": ""}
        if self.peer_seconds is not None:
            theirs = [statistics.median(round_) for round_ in self.peer_seconds]
            ours = [statistics.median(round_) for round_ in self.our_seconds]
            peer = {
                "encodec, ms": f"{1e3 * statistics.median(theirs):.2f}",
                **ratio_cells(theirs, ours),
            }
        return {
            "model": self.model,
            "weights": self.weights,
            "loop": self.loop,
            "call": self.call,
            "median, ms": f"{1e3 * middle:.3f}",
            "p99, ms": f"{1e3 * late:.3f}",
            "p99 / frame": f"{late / self.frame_seconds:.0%}",
            "x real time": f"{self.frame_seconds / middle:.2f}",
            **peer,
        }


def our_pair(codec: Codec, bandwidth: float) -> Pair:
    """One frame of samples to codes, and back, by streams."""
    encoder = codec.stream_encoder(bandwidth, start="low_latency")
    return encoder.push, codec.stream_decoder(start="low_latency").push


def their_pair(fb: Any) -> Pair:
    """One frame of samples to codes, and back, each a recording of its own to the reference."""

    @torch.inference_mode()
    def encode(chunk: FloatArray) -> Any:
        return fb.encode(torch.from_numpy(chunk)[None])

    return encode, torch.inference_mode()(fb.decode)


def in_turn(pair: Pair, chunks: list[FloatArray]) -> dict[str, list[float]]:
    """Seconds of each call when a decoded frame follows every encoded one."""
    encode, decode = pair
    times = []
    for chunk in chunks:
        there, codes = timed(encode, chunk)
        back, _ = timed(decode, codes)
        times.append((there, back, there + back))
    return dict(zip(("encode", "decode", "both"), map(list, zip(*times, strict=True)), strict=True))


def alone(pair: Pair, chunks: list[FloatArray]) -> dict[str, list[float]]:
    """Seconds of each call when the encoder runs by itself."""
    return {"encode": [timed(pair[0], chunk)[0] for chunk in chunks]}


LOOPS = {"in turn": in_turn, "encoder alone": alone}


def measure(name: str, loops: list[str], bandwidth: float, frames: int, rounds: int) -> list[Calls]:
    """Time every loop of one model, with the peer's where it knows the model."""
    model = random_model(name)
    codecs = codecs_by_weights(model, WEIGHTS)
    makers = {weights: lambda c=codec: our_pair(c, bandwidth) for weights, codec in codecs.items()}
    if name.startswith("encodec_"):
        fb = reference_model(model, bandwidth)
        makers["encodec"] = lambda: their_pair(fb)
    hop, rate = model.config.hop, model.config.sample_rate
    wav = program_material("test", rate, model.config.channels, (frames + COLD) * hop / rate + 1)
    # Contiguous, as they come from a sound card.
    chunks = [np.array(wav[:, i * hop : (i + 1) * hop]) for i in range(frames + COLD)]
    pairs = {(who, loop): make() for loop in loops for who, make in makers.items()}
    times: dict[tuple[str, str, str], Rounds] = {}
    for round_ in range(rounds + 1):
        for (who, loop), pair in pairs.items():
            warm_up = round_ == 0
            calls = LOOPS[loop](pair, chunks[: 2 * COLD] if warm_up else chunks)
            for call, seconds in {} if warm_up else calls.items():
                times.setdefault((who, loop, call), []).append(seconds[COLD:])
    return [
        Calls(name, hop / rate, who, loop, call, ours, times.get(("encodec", loop, call)))
        for (who, loop, call), ours in times.items()
        if who != "encodec"
    ]


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--frames", type=int, default=200, help="calls of a loop per round")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--bandwidth", type=float, default=6.0, help="kbps")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    facts = machine("torch", "encodec")
    settings = (args.bandwidth, args.frames, args.rounds)
    calls = measure("encodec_24khz", ["in turn", "encoder alone"], *settings)
    calls += measure("stereo_48khz_large", ["in turn"], *settings)
    title = (
        f"bench_frame: one frame per call at {args.bandwidth:g} kbps, one thread, "
        f"{args.rounds} rounds of {args.frames} frames"
    )
    publish(args.json, facts, {title: calls})


if __name__ == "__main__":
    main()
