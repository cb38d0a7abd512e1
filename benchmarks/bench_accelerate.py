"""What does one line, `ef.accelerate(model)`, bring to programs that already run EnCodec?

    python benchmarks/bench_accelerate.py [--seconds 10] [--files 16] [--repetitions 5] [--json]

transformers' and encodec's models before and after, with the same random weights, on one thread:
encode and decode of one recording and of a batch, at 24 and 48 kHz, 6 kbps; `encodec.compress` with
its language model, whose time alone is the floor that no codec can go below ("of the floor": the
language model's time over that of the accelerated call); and what noticing changed weights takes.
Every repetition times each in turn. Peers: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import importlib
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants import random_model, reference_model, transformers_model
from report import machine, parser, publish
from timing import ratio_cells, timed

import encodec_fast as ef

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import program_material

BANDWIDTH = 6.0
COMPRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Gain:
    """Seconds per repetition of one call of a package, before and after."""

    what: str
    before: list[float]
    after: list[float]
    floor: list[float] | None = None

    def cells(self) -> dict[str, str]:
        """A row."""
        after = statistics.median(self.after)
        share = "" if self.floor is None else f"{statistics.median(self.floor) / after:.1%}"
        return {
            "call": self.what,
            "before, ms": f"{statistics.median(self.before) * 1e3:.0f}",
            "after, ms": f"{after * 1e3:.0f}",
            **ratio_cells(self.before, self.after),
            "of the floor": share,
        }


def in_turn(ways: dict[str, Callable[[], Any]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each way per repetition; a first round warms up."""
    times: dict[str, list[float]] = {way: [] for way in ways}
    for repetition in range(repetitions + 1):
        for way, function in ways.items():
            elapsed = timed(function)[0]
            if repetition:
                times[way].append(elapsed)
    return times


def measure_transformers(name: str, seconds: float, files: int, repetitions: int) -> list[Gain]:
    """Encode and decode, one recording and a batch."""
    model = random_model(name)
    plain, fast = transformers_model(model), ef.accelerate(transformers_model(model))
    config = model.config
    material = program_material("test", config.sample_rate, config.channels, files * seconds)
    gains = []
    for count in (1, files):
        batch = torch.from_numpy(np.stack(np.split(material, files, axis=1)[:count]))
        out = fast.encode(batch, bandwidth=BANDWIDTH)
        pad = out.last_frame_pad_length

        def encode(m: Any, batch: Any = batch) -> Any:
            return m.encode(batch, bandwidth=BANDWIDTH)

        def decode(m: Any, out: Any = out, pad: int = pad) -> Any:
            return m.decode(out.audio_codes, out.audio_scales, last_frame_pad_length=pad)

        for what, call in (("encode", encode), ("decode", decode)):
            with torch.no_grad():
                times = in_turn(
                    {"before": lambda c=call: c(plain), "after": lambda c=call: c(fast)},
                    repetitions,
                )
            label = f"transformers, {name}, {what}, {count} of {seconds:g} s"
            gains.append(Gain(label, times["before"], times["after"]))
    return gains


def measure_encodec(name: str, seconds: float, repetitions: int) -> list[Gain]:
    """Encode and decode of one recording, and compress with the language model."""
    model = random_model(name)
    plain, fast = (
        reference_model(model, BANDWIDTH),
        ef.accelerate(reference_model(model, BANDWIDTH)),
    )
    config = model.config
    material = torch.from_numpy(
        program_material("test", config.sample_rate, config.channels, seconds)
    )[None]
    gains = []
    with torch.no_grad():
        frames = fast.encode(material)
        for what, call in (
            ("encode", lambda m: m.encode(material)),
            ("decode", lambda m: m.decode(frames)),
        ):
            times = in_turn(
                {"before": lambda c=call: c(plain), "after": lambda c=call: c(fast)}, repetitions
            )
            label = f"encodec, {name}, {what}, {seconds:g} s"
            gains.append(Gain(label, times["before"], times["after"]))
    gains.append(measure_compress(name, plain, fast, material[0], repetitions))
    return gains


def measure_compress(name: str, plain: Any, fast: Any, wav: Any, repetitions: int) -> Gain:
    """encodec.compress with its language model (random weights)."""
    compress: Any = importlib.import_module("encodec.compress")
    from encodec.model import LMModel

    lm = LMModel(
        plain.quantizer.n_q,
        plain.quantizer.bins,
        num_layers=5,
        dim=200,
        past_context=int(3.5 * plain.frame_rate),
    ).eval()
    for model in (plain, fast):
        model.name = name
        model.get_lm_model = lambda: lm
    wav = wav[:, : int(COMPRESS_SECONDS * plain.sample_rate)]
    with torch.no_grad():
        frames = fast.encode(wav[None])

    @torch.no_grad()
    def language_model_alone() -> None:
        for codes, _ in frames:
            states: Any = None
            offset, inputs = 0, torch.zeros(1, codes.shape[1], 1, dtype=torch.int64)
            for t in range(codes.shape[2]):
                _, states, offset = lm(inputs, states, offset)
                inputs = 1 + codes[:, :, t : t + 1]

    times: dict[str, list[float]] = {"before": [], "after": [], "floor": []}
    for repetition in range(repetitions + 1):
        ef.restore(fast)
        one = timed(lambda: compress.compress(plain, wav, use_lm=True))[0]
        ef.accelerate(fast, quiet=True)
        fast.encode(wav[None])
        two = timed(lambda: compress.compress(fast, wav, use_lm=True))[0]
        three = timed(language_model_alone)[0]
        if repetition:
            for way, elapsed in zip(times, (one, two, three), strict=True):
                times[way].append(elapsed)
    label = f"encodec.compress, {name}, {COMPRESS_SECONDS:g} s, with its LM"
    return Gain(label, times["before"], times["after"], times["floor"])


@dataclass(frozen=True)
class Notice:
    """Seconds that a call of a module takes to see that none of its weights has changed."""

    module: str
    seconds: list[float]

    def cells(self) -> dict[str, str]:
        """A row."""
        return {"module": self.module, "us": f"{statistics.median(self.seconds) * 1e6:.1f}"}


def measure_notice(repetitions: int) -> list[Notice]:
    """Of the modules of transformers' 24 kHz model."""
    calls = 1000
    model = ef.accelerate(transformers_model(random_model("encodec_24khz")), quiet=True)
    found = []
    for name in ("encoder", "quantizer", "decoder"):
        module = getattr(model, name)
        module.native_part.native(module)
        watch, _ = module.native_part._read
        unchanged = watch.unchanged
        rounds = [
            timed(lambda u=unchanged: [u() for _ in range(calls)])[0] / calls
            for _ in range(repetitions)
        ]
        found.append(Notice(name, rounds))
    return found


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--models", nargs="+", default=["encodec_24khz", "encodec_48khz"])
    arguments.add_argument("--seconds", type=float, default=10.0, help="length of each recording")
    arguments.add_argument("--files", type=int, default=16, help="recordings of the batch")
    arguments.add_argument("--repetitions", type=int, default=5)
    args = arguments.parse_args()
    torch.set_num_threads(1)
    facts = machine("torch", "encodec", "transformers")
    gains: list[Gain] = []
    for name in args.models:
        gains += measure_transformers(name, args.seconds, args.files, args.repetitions)
        gains += measure_encodec(name, args.seconds, args.repetitions)
    settings = f"{BANDWIDTH:g} kbps, one thread, {args.repetitions} repetitions"
    sections = {
        f"bench_accelerate: {settings}": gains,
        "bench_accelerate: noticing changed weights": measure_notice(10 * args.repetitions),
    }
    publish(args.json, facts, sections)


if __name__ == "__main__":
    main()
