"""How long does a training step take, and do the data keep up?

    python benchmarks/bench_training.py --audio DIR [--steps 12] [--json]

One thread. Per configuration of ours for a CPU: seconds per step in float32 and bfloat16, without
and with the discriminator, as median over the steps after two for warming up (processor time, so a
busy machine hardly shifts it), and seconds of audio trained per second. Then how many training
items a second one data worker makes, from files and from the cache. `--audio` has a MANIFEST.csv
with the columns path, split, kind and licence.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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


def step_seconds(settings: CodecSettings, adversary: bool, steps: int) -> float:
    """The median step; with `adversary` every one has its losses, two of three train it."""
    started = replace(settings.adversary, start=0.0 if adversary else 1.0)
    quantizer = replace(settings.quantizer, plain_steps=0, initial_batches=3, kmeans_iterations=1)
    validation = replace(settings.validation, steps=0)
    changed = {"adversary": started, "quantizer": quantizer, "validation": validation}
    trainer = CodecTrainer(replace(settings, **changed))
    batches = training_batches(settings)
    taken = []
    for _ in range(steps + WARM):
        batch = next(batches)
        start = time.process_time()
        trainer.train_step(batch)
        taken.append(time.process_time() - start)
    return statistics.median(taken[WARM:])


def items_per_second(settings: CodecSettings, cached: bool, count: int = 64) -> float:
    """Training items that one process makes in a second of processor time."""
    data = settings.data if cached else replace(settings.data, cache=None)
    batches = training_batches(replace(settings, data=data))
    next(batches)
    start = time.process_time()
    for _ in range(count // settings.batch):
        next(batches)
    return count / (time.process_time() - start)


def main() -> None:
    """Print two Markdown tables, or every measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", required=True)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    steps, items = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("nano_24khz", "stereo_48khz"):
            out = Path(folder) / name
            chosen = [f"audio={options.audio}", f"out={out}"]
            settings = load_settings(CodecSettings, name, chosen)
            for precision in ("float32", "bfloat16"):
                for adversary in (False, True):
                    changed = replace(settings, precision=precision)
                    seconds = step_seconds(changed, adversary, options.steps)
                    audio = settings.batch * settings.samples / settings.config.sample_rate
                    steps.append((name, precision, adversary, seconds, audio / seconds))
            for cached in (False, True):
                items.append((name, cached, items_per_second(settings, cached)))
    if options.json:
        print(json.dumps({"steps": steps, "items": items}))
        return
    print("| configuration | precision | discriminator | s/step | x real time |")
    print("|---|---|---|---|---|")
    for name, precision, adversary, seconds, speed in steps:
        shown = "small" if adversary else ""
        print(f"| {name} | {precision} | {shown} | {seconds:.3f} | {speed:.1f} |")
    print("\n| configuration | read from | items/s of one worker |\n|---|---|---|")
    for name, cached, speed in items:
        print(f"| {name} | {'cache' if cached else 'files'} | {speed:.0f} |")


if __name__ == "__main__":
    main()
