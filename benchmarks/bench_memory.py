"""How much memory do `compress` and `decompress` need, and does it grow with the recording?

    python benchmarks/bench_memory.py [--minutes 1 180] [--rate 24000] [--channels 1]
        [--model NAME] [--json]

Writes recordings of those lengths block by block, runs the command line on each in processes of its
own and reports the peak resident memory of each. Exit status 1 above `--limit-mb`. POSIX only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from report import machine, parser, publish


@dataclass(frozen=True)
class Run:
    """What one command took for one recording."""

    minutes: float
    command: str
    wall_seconds: float
    peak_mb: float
    output_mb: float

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "minutes": f"{self.minutes:g}",
            "command": self.command,
            "wall, s": f"{self.wall_seconds:.1f}",
            "x real time": f"{60 * self.minutes / self.wall_seconds:.0f}",
            "peak memory, MB": f"{self.peak_mb:.0f}",
            "output, MB": f"{self.output_mb:.1f}",
        }


def write_recording(path: Path, minutes: float, rate: int, channels: int) -> None:
    """A drifting chord with noise, 16-bit, one second at a time."""
    rng = np.random.default_rng(0)
    time_axis = np.arange(rate) / rate
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
        for second in range(round(minutes * 60)):
            pitch = 110.0 * 2 ** (second % 24 / 12)
            tone = np.sin(2 * np.pi * pitch * time_axis) + np.sin(3 * np.pi * pitch * time_axis)
            block = 0.2 * tone[:, None] + 0.05 * rng.standard_normal((rate, channels))
            file.write(block)


def run(arguments: list[str], folder: str) -> tuple[float, float]:
    """Run the command line in `folder`; wall seconds and peak resident memory in MB."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "encodec_fast.cli", *arguments]
    process = subprocess.Popen(command, cwd=folder)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"encodec-fast {' '.join(arguments)}: exit status {process.returncode}")
    # ru_maxrss counts kilobytes on Linux and bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit / 1e6


def measure(minutes: float, rate: int, channels: int, model: str, parent: Path | None) -> list[Run]:
    """Compress and decompress one recording in a folder below `parent`."""
    runs = []
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        source, packed = Path(folder) / "source.wav", Path(folder) / "packed.ecdc"
        decoded = Path(folder) / "decoded.wav"
        write_recording(source, minutes, rate, channels)
        for command, given, made in (
            ("compress", source, packed),
            ("decompress", packed, decoded),
        ):
            wall, peak = run([command, "-m", model, str(given), str(made)], folder)
            runs.append(Run(minutes, command, wall, peak, made.stat().st_size / 1e6))
    return runs


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, nargs="+", default=[1.0, 180.0])
    arguments.add_argument("--rate", type=int, default=24000)
    arguments.add_argument("--channels", type=int, default=1)
    arguments.add_argument("--model", default="nano_24khz", help="a name or a program file")
    arguments.add_argument("--limit-mb", type=float, default=300.0)
    arguments.add_argument("--folder", type=Path, help="for the recordings; default: temporary")
    args = arguments.parse_args()
    model = str(Path(args.model).resolve()) if Path(args.model).is_file() else args.model
    facts = machine()
    runs: list[Run] = []
    for minutes in args.minutes:
        runs += measure(minutes, args.rate, args.channels, model, args.folder)
    title = f"bench_memory: {args.rate} Hz, {args.channels} channel(s), {Path(model).stem}"
    publish(args.json, facts, {title: runs})
    highest = max(r.peak_mb for r in runs)
    if highest > args.limit_mb:
        raise SystemExit(f"peak memory {highest:.0f} MB is above {args.limit_mb:.0f} MB")


if __name__ == "__main__":
    main()
