"""How much memory do `compress` and `decompress` need for a long recording?

    python benchmarks/bench_memory.py [--minutes 180] [--rate 24000] [--channels 1] [--model NAME]

Writes a recording of that length block by block, runs the command line on it in processes of its
own and reports the peak resident memory of each. Exit status 1 above `--limit-mb`. POSIX only.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from report import machine, markdown


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


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=180.0)
    parser.add_argument("--rate", type=int, default=24000)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--model", default="nano_24khz", help="a name or a program file")
    parser.add_argument("--limit-mb", type=float, default=300.0)
    parser.add_argument("--folder", type=Path, help="where the recording goes; default: temporary")
    args = parser.parse_args()
    model = str(Path(args.model).resolve()) if Path(args.model).is_file() else args.model
    facts = machine()
    rows = []
    peaks = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        source, packed = Path(folder) / "source.wav", Path(folder) / "packed.ecdc"
        decoded = Path(folder) / "decoded.wav"
        write_recording(source, args.minutes, args.rate, args.channels)
        commands = {
            "compress": ["compress", "-m", model, str(source), str(packed)],
            "decompress": ["decompress", "-m", model, str(packed), str(decoded)],
        }
        for name, arguments in commands.items():
            wall, peak = run(arguments, folder)
            peaks.append(peak)
            output = Path(arguments[-1]).stat().st_size
            speed = args.minutes * 60 / wall
            rows.append([name, f"{wall:.1f}", f"{speed:.0f}", f"{peak:.0f}", f"{output / 1e6:.1f}"])
    title = (
        f"bench_memory: {args.minutes:g} minutes, {args.rate} Hz, "
        f"{args.channels} channel(s), {Path(model).stem}"
    )
    header = ["command", "wall, s", "x real time", "peak memory, MB", "output, MB"]
    print(markdown(title, facts, header, rows))
    if max(peaks) > args.limit_mb:
        raise SystemExit(f"peak memory {max(peaks):.0f} MB is above {args.limit_mb:.0f} MB")


if __name__ == "__main__":
    main()
