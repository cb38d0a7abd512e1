"""How late is what comes out of a live pipe, `stream encode | stream decode`?

    python benchmarks/bench_pipe.py [--model nano_24khz] [--seconds 60] [--block-ms 10]
        [--chunks 1000 100 13.33] [--entropy none lm] [--low-latency] [--json]

A producer hands over blocks of samples at real time, as a microphone does, to two processes in a
row; a consumer notes when each sample arrives. The delay of a sample is the time from the end of
its block (when a microphone has it) to its arrival. With chunks of C ms and blocks of B ms the
first sample of a chunk cannot be less than C - B late. Processor time is what both processes took
per second of audio.
"""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from report import machine, parser, publish

from encodec_fast import Codec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import program_material


@dataclass(frozen=True)
class Delay:
    """Delays in ms of all samples of one pipe."""

    model: str
    entropy: str
    chunk_ms: float
    median: float
    p99: float
    worst: float
    per_chunk: float  # of the last sample of each chunk: what the pipe itself adds
    per_chunk_p99: float
    load: float  # processor seconds per second
    kbps: float

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "model": self.model,
            "entropy": self.entropy,
            "chunk, ms": f"{self.chunk_ms:g}",
            "delay, ms: median": f"{self.median:.1f}",
            "p99": f"{self.p99:.1f}",
            "largest": f"{self.worst:.1f}",
            "last sample of a chunk: median": f"{self.per_chunk:.1f}",
            "p99 ": f"{self.per_chunk_p99:.1f}",
            "processor time, %": f"{100 * self.load:.1f}",
            "kbps": f"{self.kbps:.2f}",
        }


class Counter(threading.Thread):
    """Reads a pipe to its end and notes when how many bytes had come."""

    def __init__(self, stream: io.BufferedReader) -> None:
        super().__init__()
        self.arrivals: list[tuple[float, int]] = []
        self.total = 0
        self._read = stream.read1

    def run(self) -> None:
        while data := self._read(1 << 16):
            self.total += len(data)
            self.arrivals.append((time.perf_counter(), self.total))


class Tee(threading.Thread):
    """Hands bytes on and counts them."""

    def __init__(self, source: io.BufferedReader, target: IO[bytes]) -> None:
        super().__init__()
        self.total = 0
        self._source, self._target = source, target

    def run(self) -> None:
        while data := self._source.read1(1 << 16):
            self.total += len(data)
            self._target.write(data)
            self._target.flush()
        self._target.close()


def measure(
    codec: Codec, model: str, entropy: str, chunk_ms: float, block_ms: float, seconds: float,
    low_latency: bool,
) -> Delay:  # fmt: skip
    """One pipe."""
    rate, channels = codec.sample_rate, codec.channels
    wav = np.tile(program_material("test", rate, channels, 10.0), (1, int(seconds // 10) + 1))
    pcm = np.rint(np.clip(wav.T[: round(seconds * rate)], -0.99, 0.99) * 32768).astype("<i2")
    step = round(block_ms * rate / 1000)
    command = [sys.executable, "-m", "encodec_fast.cli", "stream"]
    start = ["--low-latency"] if low_latency else []
    encode = [*command, "encode", "-m", model, "--entropy", entropy, "--chunk-ms", str(chunk_ms)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    pipe = subprocess.PIPE
    with (
        subprocess.Popen([*encode, *start], stdin=pipe, stdout=pipe) as encoder,
        subprocess.Popen([*command, "decode", "-m", model], stdin=pipe, stdout=pipe) as decoder,
    ):
        assert encoder.stdin and decoder.stdin
        assert isinstance(encoder.stdout, io.BufferedReader)
        assert isinstance(decoder.stdout, io.BufferedReader)
        tee, counter = Tee(encoder.stdout, decoder.stdin), Counter(decoder.stdout)
        tee.start()
        counter.start()
        time.sleep(1.5)  # both have started and loaded their models
        begun = time.perf_counter()
        for first in range(0, len(pcm), step):
            wait = begun + (first + step) / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            encoder.stdin.write(pcm[first : first + step].tobytes())
            encoder.stdin.flush()
        encoder.stdin.close()
        tee.join()
        counter.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    times = np.array([when for when, _ in counter.arrivals])
    counts = np.array([total for _, total in counter.arrivals]) // (2 * channels)
    # The end of the stream pushes out what waits, sooner than real time would.
    samples = np.arange(0, len(pcm) - round((chunk_ms + 100) * rate / 1000))
    arrived = times[np.searchsorted(counts, samples, side="right")]
    made = begun + (samples // step + 1) * step / rate
    delays = 1000 * (arrived - made)
    frames = max(1, round(chunk_ms / 1000 * rate / codec.hop))
    lasts = delays[frames * codec.hop - 1 :: frames * codec.hop]
    return Delay(
        codec.name, entropy, 1000 * frames * codec.hop / rate, float(np.median(delays)),
        float(np.percentile(delays, 99)), float(delays.max()), float(np.median(lasts)),
        float(np.percentile(lasts, 99)), used / seconds, tee.total * 8 / seconds / 1000,
    )  # fmt: skip


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", default="nano_24khz", help="a name or a program file")
    arguments.add_argument("--seconds", type=float, default=60.0)
    arguments.add_argument("--block-ms", type=float, default=10.0)
    arguments.add_argument("--chunks", type=float, nargs="+", default=[1000, 100, 13.33])
    arguments.add_argument("--entropy", nargs="+", default=["none", "lm"])
    arguments.add_argument("--low-latency", action="store_true")
    args = arguments.parse_args()
    facts = machine()
    codec = Codec.load(args.model)
    runs = [
        measure(
            codec, args.model, entropy, chunk, args.block_ms, args.seconds, args.low_latency
        )
        for entropy in args.entropy
        for chunk in args.chunks
    ]  # fmt: skip
    publish(args.json, facts, {f"bench_pipe: {args.seconds:g} s at real time, blocks of "
                               f"{args.block_ms:g} ms": runs})  # fmt: skip


if __name__ == "__main__":
    main()
