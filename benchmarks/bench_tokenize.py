"""How fast does `tokenize` code an hour of recordings, files to files, on two cores?

    python benchmarks/bench_tokenize.py [--seconds 3600] [--rounds 4] [--threads 2] [--json]

Against a straightforward loop over transformers' EncodecModel (read, mix, resample, encode, one
file after the other, torch on as many threads), and against what as many threads could do at most:
that many times the rate of `codec.encode_many` on one thread, whose recordings are decoded
beforehand. The recordings are those of $ENCODEC_FAST_TEST_AUDIO, in turn until there are enough of
them, in equal parts for the rounds; in each round the peers code a part of what `tokenize` codes.
All have the same random weights. On a machine that is not quiet the rates per second of CPU time
tell more than ratios of wall times. Peers: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from contestants import native_codec, random_model, transformers_model
from report import machine, parser, publish

import encodec_fast as ef
from encodec_fast.audio import AudioReader
from encodec_fast.codec import Codec

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from signals import audio_root, synthetic_clip

SUFFIXES = (".flac", ".ogg", ".mp3", ".wav")


@dataclass(frozen=True)
class Rate:
    """Seconds of audio per second of wall time and of CPU time, a value for each round."""

    what: str
    threads: int
    audio_seconds: float
    rates: list[float]
    cpu_rates: list[float]

    def cells(self) -> dict[str, str]:
        """A row of the first table."""
        return {
            "": self.what,
            "threads": str(self.threads),
            "audio": f"{self.audio_seconds:.0f} s",
            "hours per hour": f"{statistics.median(self.rates):.1f}",
            "range": f"{min(self.rates):.1f} to {max(self.rates):.1f}",
            "per CPU second": f"{statistics.median(self.cpu_rates):.1f} s",
        }


@dataclass(frozen=True)
class Ratio:
    """The rate of `tokenize` over another one, a value for each round."""

    what: str
    bar: float
    ratios: list[float]

    def cells(self) -> dict[str, str]:
        """A row of the second table."""
        return {
            "tokenize against": self.what,
            "ratio": f"**{statistics.median(self.ratios):.2f}**",
            "range": f"{min(self.ratios):.2f} to {max(self.ratios):.2f}",
            "bar": f"{self.bar:g}",
        }


def recordings(seconds: float, folder: Path) -> list[tuple[Path, float]]:
    """Files and their lengths, in turn until they last `seconds`; synthetic ones in `folder` where
    there are no recordings."""
    found = sorted(p for p in (audio_root() / "test").rglob("*") if p.suffix in SUFFIXES)
    if not found:
        for number in range(20):
            found.append(folder / f"{number}.flac")
            soundfile.write(found[-1], synthetic_clip(number, 44100, 2).T, 44100)
    # Kinds of sound lie in folders: mixed, so that rounds are alike.
    found = sorted(found, key=lambda path: path.stem[::-1])
    lengths = {path: soundfile.info(path).duration for path in found}
    chosen: list[tuple[Path, float]] = []
    total = 0.0
    for path in itertools.cycle(found):
        if total >= seconds:
            return chosen
        chosen.append((path, lengths[path]))
        total += lengths[path]
    return chosen


def tokenized(codec: Codec, paths: Sequence[Path], threads: int) -> None:
    """The whole of `tokenize`: listing, reading, coding, writing, checksums."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "list.jsonl"
        rows = [{"path": str(path), "key": f"{n}-{path.name}"} for n, path in enumerate(paths)]
        manifest.write_text("\n".join(map(json.dumps, rows)))
        report = ef.tokenize(manifest, Path(folder) / "out", codec, threads=threads)
        assert report.items == len(paths)


@torch.inference_mode()
def by_transformers(hf: Any, paths: Sequence[Path], bandwidth: float) -> None:
    """The loop that one writes first."""
    rate = hf.config.sampling_rate
    for path in paths:
        wav, found = soundfile.read(path, dtype="float32", always_2d=True)
        mono = soxr.resample(wav.mean(axis=1), found, rate)
        codes = hf.encode(torch.from_numpy(mono)[None, None], bandwidth=bandwidth).audio_codes
        np.asarray(codes[0, 0], np.uint16)


def decoded(codec: Codec, paths: Sequence[Path]) -> list[Any]:
    """The samples of files, as the codec takes them."""
    wavs = []
    for path in paths:
        with AudioReader(path, codec.sample_rate, codec.channels) as reader:
            wavs.append(np.concatenate(list(reader.blocks()), axis=1))
    return wavs


def rate_of(work: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Seconds of audio per second of wall and of CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return seconds / (time.perf_counter() - wall), seconds / (time.process_time() - cpu)


def head(part: Sequence[tuple[Path, float]], seconds: float) -> tuple[list[Path], float]:
    """The first files of a part, that last about `seconds`, and their length."""
    ends = list(itertools.accumulate(length for _, length in part))
    count = 1 + sum(end < seconds for end in ends[:-1])
    return [path for path, _ in part[:count]], ends[count - 1]


def measure(
    seconds: float, peer_seconds: float, rounds: int, threads: int
) -> tuple[list[Rate], list[Ratio]]:
    """Time the three in turn, once a round, on other recordings each time."""
    model = random_model("encodec_24khz")
    codec, hf = native_codec(model), transformers_model(model)
    torch.set_num_threads(threads)
    names = {"tokenize": threads, "transformers, a loop": threads, "encode_many, decoded": 1}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    audio = dict.fromkeys(names, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        chosen = recordings(seconds, Path(folder))
        for part in (chosen[n::rounds] for n in range(rounds)):
            paths, length = head(part, seconds)
            few, few_length = head(part, peer_seconds / rounds)
            some, some_length = head(part, length / threads)
            wavs = decoded(codec, some)
            work: list[tuple[str, Callable[[], Any], float]] = [
                ("transformers, a loop", lambda few=few: by_transformers(hf, few, 6.0), few_length),
                ("tokenize", lambda paths=paths: tokenized(codec, paths, threads), length),
                ("encode_many, decoded", lambda wavs=wavs: codec.encode_many(wavs), some_length),
            ]
            for name, function, duration in work:
                found[name].append(rate_of(function, duration))
                audio[name] += duration
    rates = [
        Rate(name, names[name], audio[name], *map(list, zip(*found[name], strict=True)))
        for name in names
    ]
    ours, peer, one = (rate.rates for rate in rates)
    return rates, [
        Ratio("the loop over transformers", 4.0, [a / b for a, b in zip(ours, peer, strict=True)]),
        Ratio(
            f"{threads} x encode_many on one thread",
            0.85,
            [a / (threads * b) for a, b in zip(ours, one, strict=True)],
        ),
    ]


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--seconds", type=float, default=3600.0, help="of audio")
    arguments.add_argument("--peer-seconds", type=float, default=480.0, help="for transformers")
    arguments.add_argument("--rounds", type=int, default=4)
    arguments.add_argument("--threads", type=int, default=2)
    args = arguments.parse_args()
    facts = machine("torch", "transformers", "soundfile", "soxr")
    rates, ratios = measure(args.seconds, args.peer_seconds, args.rounds, args.threads)
    title = f"Tokenisation of {args.seconds / 3600:.2g} h of recordings, encodec_24khz at 6 kbps"
    publish(args.json, facts, {title: rates, f"{title}: ratios": ratios})


if __name__ == "__main__":
    main()
