"""How fast are many files with the language model in one call, against one by one?

    python benchmarks/bench_compress_many.py [--models nano_24khz encodec_24khz encodec_48khz]
        [--files 64] [--seconds 3] [--bandwidth 6] [--entropy lm] [--repetitions 5] [--json]

`Codec.compress_many` and `decompress_many` against `compress` and `decompress` in a loop, on one
thread, in turn: equal bytes and samples, which is checked. Files have half to one and a half times
the seconds. Models of Meta's sizes have random weights (and need PyTorch to be made), the bundled
ones their own. With random weights the probabilities are nearly uniform; speed does not depend on
that.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from report import machine, parser, publish
from timing import ratio_cells, timed

from encodec_fast import Codec
from encodec_fast._native import Audio
from encodec_fast.models.config import CONFIGS
from encodec_fast.store import list_programs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import program_material


@dataclass(frozen=True)
class Case:
    """Seconds per repetition of one direction of one model."""

    model: str
    direction: str
    files: int
    audio_seconds: float
    alone_seconds: list[float]
    together_seconds: list[float]

    def cells(self) -> dict[str, str]:
        """A row: both rates as multiples of real time, their ratio and its range."""
        alone, together = (
            self.audio_seconds / statistics.median(s)
            for s in (self.alone_seconds, self.together_seconds)
        )
        return {
            "model": self.model,
            "direction": self.direction,
            "files": f"{self.files}, {self.audio_seconds / self.files:.1f} s on average",
            "one by one, x real time": f"{alone:.1f}",
            "together, x real time": f"{together:.1f}",
            **ratio_cells(self.alone_seconds, self.together_seconds),
        }


def load(name: str) -> Codec:
    """An installed model, or one of Meta's sizes with random weights, with a language model."""
    if name not in CONFIGS or name in {program.name for program in list_programs()}:
        return Codec.load(name)
    import torch
    from contestants import random_model

    from encodec_fast.models.entropy_export import export_entropy_model
    from encodec_fast.models.export import export_model
    from encodec_fast.models.lm import LanguageModel

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / f"{name}.safetensors"
        export_model(random_model(name), program)
        lm = LanguageModel(CONFIGS[name])
        export_entropy_model(name, lm, None, program.with_suffix(".entropy.safetensors"))
        codec = Codec.load(program)
        assert codec.entropy_model is not None  # read while the file is there
        return codec


def recordings(codec: Codec, files: int, seconds: float) -> list[Audio]:
    """Pieces of half to one and a half times `seconds`."""
    lengths = np.random.default_rng(0).uniform(0.5, 1.5, files) * seconds * codec.sample_rate
    bounds = np.cumsum(lengths.astype(int))
    material = program_material(
        "test", codec.sample_rate, codec.channels, bounds[-1] / codec.sample_rate + 1
    )
    return [np.ascontiguousarray(wav) for wav in np.split(material, bounds, axis=1)[:-1]]


def measure(
    name: str, files: int, seconds: float, bandwidth: float, entropy: str, repetitions: int
) -> list[Case]:
    """Both directions of one model."""
    codec = load(name)
    wavs = recordings(codec, files, seconds)
    times: list[tuple[float, ...]] = []
    for repetition in range(repetitions + 1):
        alone, datas = timed(lambda: [codec.compress(wav, bandwidth, entropy) for wav in wavs])
        together, found = timed(codec.compress_many, wavs, bandwidth, entropy)
        assert found == datas
        alone_back, audio = timed(lambda datas=datas: [codec.decompress(data) for data in datas])
        together_back, heard = timed(codec.decompress_many, datas)
        assert all(np.array_equal(one, other) for one, other in zip(audio, heard, strict=True))
        if repetition:  # the first one warms up
            times.append((alone, together, alone_back, together_back))
    total = sum(wav.shape[1] for wav in wavs) / codec.sample_rate
    columns = [list(column) for column in zip(*times, strict=True)]
    return [
        Case(name, "compress", files, total, columns[0], columns[1]),
        Case(name, "decompress", files, total, columns[2], columns[3]),
    ]


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    models = ["nano_24khz", "encodec_24khz", "encodec_48khz"]
    arguments.add_argument("--models", nargs="+", default=models)
    arguments.add_argument("--files", type=int, default=64)
    arguments.add_argument("--seconds", type=float, default=3.0, help="of a file, on average")
    arguments.add_argument("--bandwidth", type=float, default=6.0, help="kbps")
    arguments.add_argument("--entropy", choices=("none", "static", "lm"), default="lm")
    arguments.add_argument("--repetitions", type=int, default=5)
    args = arguments.parse_args()
    facts = machine("torch")
    cases = [
        case
        for name in args.models
        for case in measure(
            name, args.files, args.seconds, args.bandwidth, args.entropy, args.repetitions
        )
    ]
    title = (
        f"bench_compress_many: {args.bandwidth:g} kbps, entropy {args.entropy}, one thread, "
        f"{args.repetitions} repetitions"
    )
    publish(args.json, facts, {title: cases})


if __name__ == "__main__":
    main()
