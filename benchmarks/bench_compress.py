"""How fast are whole files with the language model, against the PyPI package `encodec`?

    python benchmarks/bench_compress.py [--models encodec_24khz encodec_48khz] [--seconds 10]
        [--repetitions 3] [--bandwidth 6] [--json]

`Codec.compress(entropy="lm")` and `Codec.decompress` (version 1) against `encodec.compress.compress
(use_lm=True)` and `decompress` (version 0): samples to bytes and back, the same random weights of
codec and language model, one thread each, in turn. The size is ours over the reference's. With
random weights the probabilities are nearly uniform; speed does not depend on that.
Peers: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contestants import random_model, reference_model
from report import machine, parser, publish
from timing import ratio_cells, timed

from encodec_fast.codec import Codec
from encodec_fast.models.config import CONFIGS
from encodec_fast.models.entropy_export import export_entropy_model
from encodec_fast.models.export import export_model
from encodec_fast.models.lm import PAST_SECONDS, LanguageModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from peers import import_encodec
from signals import program_material


@dataclass(frozen=True)
class Race:
    """Seconds per repetition of one direction."""

    model: str
    direction: str
    audio_seconds: float
    peer_seconds: list[float]
    our_seconds: list[float]
    size: float  # ours / theirs

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        theirs, ours = (
            self.audio_seconds / statistics.median(s) for s in (self.peer_seconds, self.our_seconds)
        )
        return {
            "model": self.model,
            "direction": self.direction,
            "encodec, x real time": f"{theirs:.2f}",
            "ours, x real time": f"{ours:.1f}",
            **ratio_cells(self.peer_seconds, self.our_seconds),
            "size": f"{self.size:.3f}",
        }


def contestants(name: str, bandwidth: float) -> tuple[Any, Any, Codec]:
    """The reference's package and model, and our codec, with one set of weights."""
    package = import_encodec()
    from encodec.model import LMModel

    config = CONFIGS[name]
    model = random_model(name)
    past = int(PAST_SECONDS * config.frame_rate)
    reference_lm = LMModel(
        config.n_codebooks, config.codebook_size, num_layers=5, past_context=past
    ).eval()
    lm = LanguageModel(config)
    lm.load_state_dict(reference_lm.state_dict())
    reference = reference_model(model, bandwidth)
    reference.name = name
    reference.get_lm_model = lambda: reference_lm
    package.compress.__globals__["MODELS"][name] = lambda: reference
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / f"{name}.safetensors"
        export_model(model, program)
        export_entropy_model(name, lm, None, program.with_suffix(".entropy.safetensors"))
        codec = Codec.load(program)
        assert codec.entropy_model is not None  # read while the file is there
    return package, reference, codec


def race(name: str, bandwidth: float, seconds: float, repetitions: int) -> list[Race]:
    """Both directions of one model."""
    package, reference, codec = contestants(name, bandwidth)
    wav = program_material("test", codec.sample_rate, codec.channels, seconds)
    tensor = torch.from_numpy(wav)
    times: dict[str, tuple[list[float], list[float]]] = {
        "compress": ([], []),
        "decompress": ([], []),
    }
    size = 0.0
    for repetition in range(repetitions + 1):
        taken, theirs = timed(package.compress, reference, tensor, True)
        ours_taken, ours = timed(codec.compress, wav, bandwidth, "lm")
        back_taken, _ = timed(package.decompress, theirs)
        ours_back, found = timed(codec.decompress, ours)
        assert found.shape == wav.shape
        size = len(ours) / len(theirs)
        if repetition:  # the first one warms up
            for key, pair in (
                ("compress", (taken, ours_taken)),
                ("decompress", (back_taken, ours_back)),
            ):
                times[key][0].append(pair[0])
                times[key][1].append(pair[1])
    return [Race(name, key, seconds, *pair, size) for key, pair in times.items()]


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--models", nargs="+", default=["encodec_24khz", "encodec_48khz"])
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--repetitions", type=int, default=3)
    arguments.add_argument("--bandwidth", type=float, default=6.0)
    args = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    facts = machine("torch", "encodec")
    races = [
        found
        for name in args.models
        for found in race(name, args.bandwidth, args.seconds, args.repetitions)
    ]
    title = (
        f"bench_compress: {args.bandwidth:g} kbps, {args.seconds:g} s, language model, one thread"
    )
    publish(args.json, facts, {title: races})


if __name__ == "__main__":
    main()
