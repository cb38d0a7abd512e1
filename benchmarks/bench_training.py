"""How long does a training step take, and do the data keep up?

    python benchmarks/bench_training.py --audio DIR [--steps 12] [--json]

One thread. Per configuration of ours for a CPU: seconds per step in float32 and bfloat16, without
and with the discriminator, as median over the steps after two for warming up (processor time, so a
busy machine hardly shifts it), and seconds of audio trained per second; the precision is the one
that was computed in, which is float32 where the machine's bfloat16 is wrong. Then how many training
items a second one data worker makes, from files and from the cache. `--audio` has a MANIFEST.csv
with the columns path, split, kind and licence.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import report
import torch

from encodec_fast.training.codec_settings import CodecSettings
from encodec_fast.training.codec_trainer import CodecTrainer
from encodec_fast.training.configuration import load_settings
from encodec_fast.training.data import Batch, open_batches

WARM = 2


def training_batches(settings: CodecSettings) -> Iterator[Batch]:
    """The batches of a run, made in this process."""
    config = settings.config
    return open_batches(
        settings.placed_data,
        config.sample_rate,
        config.channels,
        settings.samples,
        settings.batch,
        settings.seed,
    )


def step_seconds(settings: CodecSettings, adversary: bool, steps: int) -> tuple[float, str]:
    """The median step, and the precision that it was computed in; with `adversary` every one has
    its losses, two of three train it."""
    weights = settings.losses.weights | ({"adversarial": 1.5, "features": 1.5} if adversary else {})
    losses = replace(settings.losses, weights=weights)
    started = replace(settings.adversary, start=0.0)
    quantizer = replace(settings.quantizer, plain_steps=0, initial_batches=3, kmeans_iterations=1)
    validation = replace(settings.validation, steps=0)
    changed = {
        "losses": losses,
        "adversary": started,
        "quantizer": quantizer,
        "validation": validation,
    }
    trainer = CodecTrainer(replace(settings, **changed))
    batches = training_batches(settings)
    taken = []
    for _ in range(steps + WARM):
        batch = next(batches)
        start = time.process_time()
        trainer.train_step(batch)
        taken.append(time.process_time() - start)
    return statistics.median(taken[WARM:]), trainer.precision


def items_per_second(settings: CodecSettings, cached: bool, count: int = 64) -> float:
    """Training items that one process makes in a second of processor time."""
    data = settings.data if cached else replace(settings.data, cache=None)
    batches = training_batches(replace(settings, data=data))
    next(batches)
    start = time.process_time()
    for _ in range(count // settings.batch):
        next(batches)
    return count / (time.process_time() - start)


@dataclass(frozen=True)
class Step:
    """A step of one configuration: seconds, and seconds of audio a second."""

    configuration: str
    precision: str
    discriminator: bool
    seconds: float
    speed: float

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "configuration": self.configuration,
            "precision": self.precision,
            "discriminator": "small" if self.discriminator else "",
            "s/step": f"{self.seconds:.3f}",
            "x real time": f"{self.speed:.1f}",
        }


@dataclass(frozen=True)
class Items:
    """Training items that one worker makes in a second."""

    configuration: str
    cached: bool
    speed: float

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "configuration": self.configuration,
            "read from": "cache" if self.cached else "files",
            "items/s": f"{self.speed:.0f}",
        }


def main() -> None:
    """Print both tables."""
    arguments = report.parser(__doc__ or "")
    arguments.add_argument("--audio", required=True)
    arguments.add_argument("--steps", type=int, default=12)
    options = arguments.parse_args()
    facts = report.machine("torch")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    steps, items = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("nano_24khz", "stereo_48khz"):
            chosen = [f"audio={options.audio}", f"out={Path(folder) / name}"]
            settings = load_settings(CodecSettings, name, chosen)
            audio = settings.batch * settings.samples / settings.config.sample_rate
            for precision in ("float32", "bfloat16"):
                for adversary in (False, True):
                    changed = replace(settings, precision=precision)
                    seconds, computed = step_seconds(changed, adversary, options.steps)
                    steps.append(Step(name, computed, adversary, seconds, audio / seconds))
            for cached in (False, True):
                items.append(Items(name, cached, items_per_second(settings, cached)))
    sections = {
        f"bench_training: a step, one thread, median of {options.steps}": steps,
        "bench_training: training items of one worker": items,
    }
    report.publish(options.json, facts, sections)


if __name__ == "__main__":
    main()
