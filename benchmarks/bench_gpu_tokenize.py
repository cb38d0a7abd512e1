"""How fast does `tokenize` code a data set on a GPU, files to files?

    python benchmarks/bench_gpu_tokenize.py [--quick] [--json]

FLAC files of 10 s, 44.1 kHz, stereo, to mono codes at 24 kHz: on the CPU with a thread for each
core, and on the card with one thread that reads ahead and with one for each core. Loading the model
is in the time. Says whether the files that come out are the CPU's. benchmarks/gpu.sh runs it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from report import machine, parser, publish

import encodec_fast as ef
from encodec_fast import _native
from encodec_fast.batch.settings import available_threads

SECONDS, RATE = 10, 44100


@dataclass(frozen=True)
class Line:
    """A run of tokenize."""

    device: str
    threads: int
    hours: float
    seconds: float
    same: bool

    def cells(self) -> dict[str, str]:
        return {
            "device": self.device,
            "threads": str(self.threads),
            "audio, h": f"{self.hours:.2f}",
            "h/s": f"{self.hours / self.seconds:.3f}",
            "files as on the CPU": "all" if self.same else "NO",
        }


def write_recordings(folder: Path, count: int) -> None:
    """Noise: to read it takes as long as music, or longer."""
    folder.mkdir()
    for number in range(count):
        noise = 0.1 * np.random.default_rng(number).standard_normal((SECONDS * RATE, 2))
        soundfile.write(folder / f"{number:05d}.flac", noise.clip(-1, 1), RATE)


def runs(count: int) -> list[Line]:
    """On the CPU, then on the card."""
    lines: list[Line] = []
    cores = available_threads()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recordings(folder / "audio", count)
        expected: dict[str, bytes] = {}
        for device, threads in (("cpu", cores), ("cuda", 1), ("cuda", cores)):
            out = folder / f"{device}-{threads}"
            report = ef.tokenize(folder / "audio", out, threads=threads, device=device)
            made = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
            expected = expected or made
            lines.append(Line(device, threads, report.hours, report.seconds, made == expected))
    return lines


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--quick", action="store_true", help="few files, to see that it runs")
    options = arguments.parse_args()
    cuda, number = _native.open_cuda("cuda")
    facts = machine("numpy", "soundfile")
    facts["card"] = cuda.device_info(number)[0]
    publish(options.json, facts, {"tokenize": runs(40 if options.quick else 1000)})


if __name__ == "__main__":
    main()
