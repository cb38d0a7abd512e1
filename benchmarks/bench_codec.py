"""How fast is coding, against `encodec`, transformers and ONNX Runtime with the same weights?

    python benchmarks/bench_codec.py [--models encodec_24khz ...] [--seconds 10 600]
        [--peers encodec transformers onnxruntime] [--bandwidth 6] [--json]

One thread each, in one run, in turn: every repetition times each peer and then this package, so
that a change of the machine's speed meets all. The table gives medians as multiples of real time,
and the median of the repetitions' ratios. Peers code long recordings in pieces of a minute, since
their memory grows with the length; this package codes them whole. ONNX Runtime runs the encoder and
decoder networks alone, without vector quantisation, and this package everything. Models that the
peers do not have (ours) run against our own PyTorch model, which makes the same operations.

A second table says what share of one core's fp32 peak our coding reaches: the multiply-accumulates
of the program's layers and of the plain vector quantisation, over the time of everything. The peak
is the larger of two measurements of each repetition, a PyTorch product of 1024 x 1024 matrices and
our own kernels on matrices that stay in the second cache level.
Peers: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from contestants import (
    PIECE_SECONDS,
    Contestant,
    exported,
    our_pytorch,
    ours,
    pieces,
    random_model,
    reference,
    transformers,
)
from macs import Macs, Peak, count
from onnx_peer import onnx_runtime
from report import machine, parser, publish
from timing import ratio_cells, timed

from encodec_fast.codec import Codec
from encodec_fast.models.config import CONFIGS
from encodec_fast.models.encodec import EncodecModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import FloatArray, program_material

DIRECTIONS = ("encode", "decode")
Times = dict[str, dict[str, list[float]]]  # seconds per repetition by contestant and direction


@dataclass(frozen=True)
class Race:
    """Seconds per repetition of one direction of one model, a peer's and ours."""

    model: str
    audio_seconds: float
    direction: str
    peer: str
    peer_seconds: list[float]
    our_seconds: list[float]

    def cells(self) -> dict[str, str]:
        """A row: both real-time factors, their ratio and its range."""
        whole = self.audio_seconds <= PIECE_SECONDS
        return {
            "model": self.model,
            "audio, s": f"{self.audio_seconds:g}",
            "direction": self.direction,
            "peer": self.peer if whole else f"{self.peer}, pieces of {PIECE_SECONDS} s",
            "peer, x real time": f"{self.audio_seconds / statistics.median(self.peer_seconds):.1f}",
            "ours, x real time": f"{self.audio_seconds / statistics.median(self.our_seconds):.1f}",
            **ratio_cells(self.peer_seconds, self.our_seconds),
        }


@dataclass(frozen=True)
class Share:
    """Our multiply-accumulates per second of audio, and the peak of each repetition per second."""

    model: str
    audio_seconds: float
    direction: str
    layers: float
    search: float
    our_seconds: list[float]
    peaks: list[float]

    def cells(self) -> dict[str, str]:
        """A row: work, rate, peak, and the rate's share of the peak."""
        rates = [(self.layers + self.search) * self.audio_seconds / s for s in self.our_seconds]
        share = statistics.median(r / p for r, p in zip(rates, self.peaks, strict=True))
        layers_alone = share * self.layers / (self.layers + self.search)
        return {
            "model": self.model,
            "audio, s": f"{self.audio_seconds:g}",
            "direction": self.direction,
            "GMAC per second of audio, layers + RVQ": f"{self.layers / 1e9:.2f} + "
            f"{self.search / 1e9:.2f}",
            "GMAC/s": f"{statistics.median(rates) / 1e9:.1f}",
            "peak, GMAC/s": f"{statistics.median(self.peaks) / 1e9:.1f}",
            "share of peak": f"**{share:.0%}**",
            "layers alone": f"{layers_alone:.0%}",
        }


PEERS: dict[str, Callable[[EncodecModel, float], Contestant]] = {
    "encodec": reference,
    "transformers": transformers,
    "onnxruntime": onnx_runtime,
}


def race(
    contestants: list[Contestant], wav: FloatArray, sample_rate: int, repetitions: int, peak: Peak
) -> tuple[Times, list[float]]:
    """Time both directions of all on one recording; also the peak around each repetition."""
    for piece in {p.shape[1]: p for p in pieces(wav, sample_rate)}.values():
        for contestant in contestants:  # to warm up: every length that a peer will meet
            contestant.decode(contestant.encode(piece))
    times: Times = {d: {c.name: [] for c in contestants} for d in DIRECTIONS}
    peaks = []
    for _ in range(repetitions):
        codes = {}
        for c in contestants:
            elapsed, codes[c.name] = timed(c.encode, wav)
            times["encode"][c.name].append(elapsed)
        peaks.append(peak.measure())
        for c in contestants:
            times["decode"][c.name].append(timed(c.decode, codes[c.name])[0])
    return times, peaks


def results(
    model: str, duration: float, times: Times, peaks: list[float], work: Macs, n_q: int
) -> tuple[list[Race], list[Share]]:
    """The rows of one race, whose last contestant is ours."""
    races, shares = [], []
    for direction, search in (("encode", n_q * work.search), ("decode", 0.0)):
        *peers, us = times[direction].items()
        races += [Race(model, duration, direction, name, t, us[1]) for name, t in peers]
        layers = work.encoder if direction == "encode" else work.decoder
        shares.append(Share(model, duration, direction, layers, search, us[1], peaks))
    return races, shares


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    defaults = ["encodec_24khz", "encodec_48khz", "nano_24khz"]
    arguments.add_argument("--models", nargs="+", default=defaults, choices=CONFIGS)
    arguments.add_argument("--peers", nargs="+", default=list(PEERS), choices=PEERS)
    arguments.add_argument("--bandwidth", type=float, default=6.0, help="kbps")
    arguments.add_argument(
        "--seconds", type=float, nargs="+", default=[10.0], help="lengths of the recording"
    )
    arguments.add_argument(
        "--repetitions", type=int, default=7, help="a third of them above a minute"
    )
    args = arguments.parse_args()
    torch.set_num_threads(1)
    facts = machine("torch", "encodec", "transformers", "onnxruntime")
    peak, races, shares = Peak(), [], []
    for name in args.models:
        model = random_model(name)
        with exported(model) as path:
            codec, work = Codec.load(path), count(path)
        known = name.startswith("encodec_")
        makers = [PEERS[peer] for peer in args.peers] if known else [our_pytorch]
        contestants = [make(model, args.bandwidth) for make in makers]
        contestants.append(ours(codec, args.bandwidth))
        for duration in args.seconds:
            wav = program_material("test", codec.sample_rate, codec.channels, duration)
            short = duration <= PIECE_SECONDS
            repetitions = args.repetitions if short else max(1, args.repetitions // 3)
            times, peaks = race(contestants, wav, codec.sample_rate, repetitions, peak)
            more = results(name, duration, times, peaks, work, codec.n_q(args.bandwidth))
            races += more[0]
            shares += more[1]
    settings = f"{args.bandwidth:g} kbps, one thread, {args.repetitions} repetitions"
    titles = (f"bench_codec: {settings}", "bench_codec: share of one core's fp32 peak")
    publish(args.json, facts, {titles[0]: races, titles[1]: shares})


if __name__ == "__main__":
    main()
