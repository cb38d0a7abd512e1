"""How fast is coding, against the PyPI package `encodec` with the same random weights?

    python benchmarks/bench_codec.py [--models encodec_24khz ...] [--bandwidth 6] [--json]

One thread each, in one run, in turn: every repetition times the peer and then this package, so that
a change of the machine's speed meets both. The table gives medians as multiples of real time, and
the median of the repetitions' ratios. Models that the peer does not have (ours) run against our own
PyTorch model, which makes the same operations. Peers: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from encodec_fast.codec import Codec
from encodec_fast.models.config import CONFIGS
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.export import export_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from peers import fb_state_dict, import_encodec
from report import machine, markdown
from signals import program_material


@dataclass(frozen=True)
class Result:
    """Seconds per repetition of one direction of one model."""

    model: str
    direction: str
    peer: str
    audio_seconds: float
    peer_seconds: list[float]
    our_seconds: list[float]

    def row(self) -> list[str]:
        """Model, direction, peer, both real-time factors, their ratio and its range."""
        pairs = zip(self.peer_seconds, self.our_seconds, strict=True)
        ratios = sorted(theirs / ours for theirs, ours in pairs)
        return [
            self.model,
            self.direction,
            self.peer,
            f"{self.audio_seconds / statistics.median(self.peer_seconds):.1f}",
            f"{self.audio_seconds / statistics.median(self.our_seconds):.1f}",
            f"**{statistics.median(ratios):.2f}**",
            f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
        ]


def random_model(name: str) -> EncodecModel:
    """Our PyTorch model with random weights; speed does not depend on what they are."""
    torch.manual_seed(0)
    model = EncodecModel(CONFIGS[name]).eval()
    for index in range(model.config.n_codebooks):
        model.quantizer.codebook(index).embed.normal_()
    return model


def native_codec(model: EncodecModel) -> Codec:
    """The native codec of `model`, on one thread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.safetensors"
        export_model(model, path)
        return Codec.load(path)


def peer_of(model: EncodecModel, bandwidth: float) -> tuple[str, Callable[..., Any], Any]:
    """Name, encoder (wav [1, C, T] to frames) and decoder of what `model` is measured against."""
    name = model.config.name
    if not name.startswith("encodec_"):
        return "our PyTorch model", lambda wav: model.encode(wav, bandwidth), model.decode
    build = getattr(import_encodec().EncodecModel, name.replace("encodec_", "encodec_model_"))
    fb = build(pretrained=False)
    fb.load_state_dict(fb_state_dict(model.state_dict()))
    fb.set_target_bandwidth(bandwidth)
    return "encodec", fb.encode, fb.decode


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    with torch.inference_mode():
        function(*arguments)
    return time.perf_counter() - start


def measure(name: str, bandwidth: float, duration: float, repetitions: int) -> list[Result]:
    """Time both directions of one model."""
    model = random_model(name)
    codec = native_codec(model)
    peer, peer_encode, peer_decode = peer_of(model, bandwidth)
    wav = program_material("test", codec.sample_rate, codec.channels, duration)
    tensor = torch.from_numpy(wav)[None]
    with torch.inference_mode():
        frames = peer_encode(tensor)
    codes = codec.encode(wav, bandwidth)
    results = [
        Result(name, direction, peer, duration, [], []) for direction in ("encode", "decode")
    ]
    for repetition in range(repetitions + 1):
        timings = (
            (seconds(peer_encode, tensor), seconds(codec.encode, wav, bandwidth)),
            (seconds(peer_decode, frames), seconds(codec.decode, codes)),
        )
        if repetition:  # the first one warms up
            for result, (theirs, ours) in zip(results, timings, strict=True):
                result.peer_seconds.append(theirs)
                result.our_seconds.append(ours)
    return results


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    defaults = ["encodec_24khz", "encodec_48khz", "nano_24khz"]
    parser.add_argument("--models", nargs="+", default=defaults, choices=CONFIGS)
    parser.add_argument("--bandwidth", type=float, default=6.0, help="kbps")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the recording")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="print every timing as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    facts = machine("torch", "encodec")
    results: list[Result] = []
    for name in args.models:
        results += measure(name, args.bandwidth, args.seconds, args.repetitions)
    if args.json:
        print(json.dumps({"machine": facts, "results": [asdict(r) for r in results]}, indent=1))
        return
    header = ["model", "direction", "peer", "peer, x real time", "ours, x real time", "ratio"]
    title = (
        f"bench_codec: {args.seconds:g} s at {args.bandwidth:g} kbps, one thread, "
        f"{args.repetitions} repetitions"
    )
    print(markdown(title, facts, [*header, "range"], [result.row() for result in results]))


if __name__ == "__main__":
    main()
