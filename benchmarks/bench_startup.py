"""How long does the command line take for one second of audio, from a cold start?

    python benchmarks/bench_startup.py [--runs 10] [--model NAME] [--json]

A new process for every run: interpreter, imports, model, coding, files. The page cache is warm. The
peer is what any PyTorch codec has to wait for before it starts: `import torch`. Exit status 1 when
the median of `compress` is above `--limit`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
from report import machine, parser, publish


@dataclass(frozen=True)
class Start:
    """Wall time of each process of one command."""

    command: str
    seconds: list[float]

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "command": self.command,
            "wall, s": f"{statistics.median(self.seconds):.3f}",
            "range": f"{min(self.seconds):.3f} to {max(self.seconds):.3f}",
        }


def wall_times(command: list[str], runs: int, folder: str) -> list[float]:
    """Seconds of each run in `folder` but the first, which fills the page cache."""
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return times[1:]


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--runs", type=int, default=10)
    arguments.add_argument("--model", default="nano_24khz", help="a name or a program file")
    arguments.add_argument("--limit", type=float, default=0.4, help="seconds")
    args = arguments.parse_args()
    model = str(Path(args.model).resolve()) if Path(args.model).is_file() else args.model
    facts = machine("torch")
    with tempfile.TemporaryDirectory() as folder:
        source, packed = Path(folder) / "clip.wav", Path(folder) / "clip.ecdc"
        decoded = Path(folder) / "decoded.wav"
        noise = np.random.default_rng(0).standard_normal(24000)
        soundfile.write(source, 0.1 * noise, 24000)
        cli = [sys.executable, "-m", "encodec_fast.cli"]
        choice = ["-f", "-m", model]
        commands = {
            "compress": [*cli, "compress", *choice, str(source), str(packed)],
            "decompress": [*cli, "decompress", *choice, str(packed), str(decoded)],
            "python -c 'import numpy'": [sys.executable, "-c", "import numpy"],
        }
        if find_spec("torch"):
            commands["python -c 'import torch'"] = [sys.executable, "-c", "import torch"]
        times = {name: wall_times(command, args.runs, folder) for name, command in commands.items()}
    title = f"bench_startup: 1 s clip, {Path(model).stem}, median of {args.runs} processes"
    publish(args.json, facts, {title: [Start(name, t) for name, t in times.items()]})
    median = statistics.median(times["compress"])
    if median > args.limit:
        raise SystemExit(f"compress takes {median:.2f} s, above {args.limit:g} s")


if __name__ == "__main__":
    main()
