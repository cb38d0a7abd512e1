"""A data set to tokens on the CPU and on cuda:0: the same files. A script: see
agreement_on_device.py."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from programs import tiny_program

import encodec_fast as ef


def write_recordings(folder: Path, count: int) -> None:
    """Of several rates and channel counts, some of which end early; one is none."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        rate = int(rng.choice([8000, 16000, 44100]))
        samples = int(rng.integers(1, rate if number % 10 else 3 * rate))
        noise = rng.uniform(-0.5, 0.5, (samples, int(rng.integers(1, 3))))
        soundfile.write(folder / f"{number}.wav", noise, rate)
    (folder / "broken.wav").write_bytes(b"nothing")


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", default="reflect")
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--ray", action="store_true", help="a cluster of one worker")
    options = parser.parse_args()
    if options.ray:
        import ray

        ray.init("local", num_cpus=1, num_gpus=1, log_to_driver=False, include_dashboard=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_program(folder, options.kind, 2)
        write_recordings(folder / "audio", options.items)
        made = []
        for device in ("cpu", "cuda"):
            how: dict[str, Any] = {"threads": 3, "device": device}
            if options.ray and device == "cuda":
                how.update(threads=1, engine="ray")
            out = folder / device
            report = ef.tokenize(folder / "audio", out, model, None, "npy", shard_size=7, **how)
            assert report.items >= options.items - 2 and len(report.failures) >= 1
            made.append(files_in(out))
        assert made[0] == made[1]
        # The folder of a run on one device is one of the same run on another.
        how = {"shard_size": 7, "device": "cuda"}
        report = ef.tokenize(folder / "audio", folder / "cpu", model, None, "npy", **how)
        assert report.resumed == report.items
    print("equal")


if __name__ == "__main__":
    main()
