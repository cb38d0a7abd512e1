"""How fast is entropy coding with the language model, against the PyPI package `encodec`?

    python benchmarks/bench_language_model.py [--repetitions 3] [--seconds 6] [--json]

`LmCoder` against the reference's `LMModel`, stepped as its `compress` and `decompress` do, with its
own intervals and arithmetic coder: Meta's sizes with the same random weights, on random codes, one
thread each, in turn. Seconds of a 48 kHz recording are segments of their own, as in files: the
reference takes them one after the other, ours as one batch; the last case is one long stream, whose
context is full. Milliseconds are per second of audio.
Peers: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from report import machine, parser, publish
from timing import ratio_cells, timed

from encodec_fast import _native
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.models.config import CONFIGS
from encodec_fast.models.entropy_export import export_entropy_model
from encodec_fast.models.lm import PAST_SECONDS, LanguageModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from peers import import_encodec

ENTRIES = 1024
Codes = list[npt.NDArray[np.uint16]]


@dataclass(frozen=True)
class Case:
    """A model, and how its streams are cut."""

    label: str
    model: str
    n_q: int
    segmented: bool

    def codes(self, seconds: int) -> Codes:
        """Random codes of all streams, uint16 [n_q, steps] each."""
        rate = CONFIGS[self.model].frame_rate
        streams, steps = (seconds, rate) if self.segmented else (1, seconds * rate)
        rng = np.random.default_rng(0)
        return [rng.integers(0, ENTRIES, (self.n_q, steps), np.uint16) for _ in range(streams)]


CASES = (
    Case("24 kHz, 6 kbps", "encodec_24khz", 8, False),
    Case("48 kHz, 6 kbps, segments", "encodec_48khz", 4, True),
    Case("48 kHz, 6 kbps, one stream", "encodec_48khz", 4, False),
)


@dataclass(frozen=True)
class Result:
    """Seconds per repetition of one direction."""

    case: str
    direction: str
    audio_seconds: int
    peer_seconds: list[float]
    our_seconds: list[float]

    def cells(self) -> dict[str, str]:
        """A row: milliseconds per second of audio, their ratio and its range, and our speed."""
        theirs, ours = (
            statistics.median(s) / self.audio_seconds for s in (self.peer_seconds, self.our_seconds)
        )
        return {
            "case": self.case,
            "direction": self.direction,
            "encodec, ms": f"{1e3 * theirs:.0f}",
            "ours, ms": f"{1e3 * ours:.1f}",
            **ratio_cells(self.peer_seconds, self.our_seconds),
            "ours, x real time": f"{1 / ours:.0f}",
        }


class Reference:
    """The reference's language model and coder, as its compress.py uses them."""

    def __init__(self, n_q: int, past: int, device: str = "cpu") -> None:
        import_encodec()
        from encodec.model import LMModel
        from encodec.quantization import ac

        self.ac = ac
        self.device = device
        self.lm = LMModel(n_q, ENTRIES, num_layers=5, past_context=past).eval().to(device)

    @torch.inference_mode()
    def _follow(self, codes: Codes, visit: Callable[[int, int, Any], None]) -> None:
        for stream, one in enumerate(codes):
            frames = torch.from_numpy(one.astype(np.int64))[None].to(self.device)
            before, states, offset = torch.zeros_like(frames[..., :1]), None, 0
            for step in range(one.shape[1]):
                p, states, offset = self.lm(before, states, offset)
                before = 1 + frames[..., step : step + 1]
                visit(stream, step, p.cpu())

    def probabilities(self, codes: Codes) -> None:
        """The language model alone."""
        self._follow(codes, lambda stream, step, p: None)

    def encode(self, codes: Codes) -> list[bytes]:
        """The bytes of each stream."""
        files = [io.BytesIO() for _ in codes]
        coders = [self.ac.ArithmeticCoder(file) for file in files]

        def push(stream: int, step: int, p: Any) -> None:
            for k, value in enumerate(codes[stream][:, step].tolist()):
                coders[stream].push(value, self._cdf(p, k))

        self._follow(codes, push)
        for coder in coders:
            coder.flush()
        return [file.getvalue() for file in files]

    def decode(self, data: list[bytes], codes: Codes) -> None:
        """The codes of each stream, which are given to compare with and to go on from."""
        coders = [self.ac.ArithmeticDecoder(io.BytesIO(one)) for one in data]

        def pull(stream: int, step: int, p: Any) -> None:
            for k, value in enumerate(codes[stream][:, step].tolist()):
                assert coders[stream].pull(self._cdf(p, k)) == value

        self._follow(codes, pull)

    def _cdf(self, p: Any, k: int) -> Any:
        return self.ac.build_stable_quantized_cdf(p[0, :, k, 0], 24, check=False)


def our_model(case: Case, reference: Reference) -> Any:
    """The reference's language model in the native core."""
    lm = LanguageModel(CONFIGS[case.model])
    lm.load_state_dict(reference.lm.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        export_entropy_model(case.model, lm, None, path)
        return EntropyModel.load(path).lm


def measure(case: Case, seconds: int, repetitions: int) -> list[Result]:
    """Time all directions of one case."""
    config = CONFIGS[case.model]
    reference = Reference(config.n_codebooks, int(PAST_SECONDS * config.frame_rate))
    codes = case.codes(seconds)
    streams = list(range(len(codes)))
    steps = [one.shape[1] for one in codes]
    coder = _native.LmCoder(our_model(case, reference), case.n_q, len(codes))
    times: list[tuple[float, ...]] = []
    for repetition in range(repetitions + 1):
        ours = []
        theirs = [timed(reference.probabilities, codes)[0]]
        ours.append(timed(coder.probabilities, streams, codes)[0])
        encode_time, data = timed(reference.encode, codes)
        theirs.append(encode_time)
        coder.reset(streams)
        our_time, our_data = timed(coder.encode, streams, codes)
        ours.append(our_time)
        theirs.append(timed(reference.decode, data, codes)[0])
        coder.reset(streams)
        our_time, decoded = timed(coder.decode, streams, our_data, steps)
        ours.append(our_time)
        coder.reset(streams)
        assert all(np.array_equal(a, b) for a, b in zip(codes, decoded, strict=True))
        if repetition:  # the first one warms up
            times.append((*theirs, *ours))
    columns = [list(column) for column in zip(*times, strict=True)]
    return [
        Result(case.label, direction, seconds, columns[i], columns[i + 3])
        for i, direction in enumerate(("probabilities", "encode", "decode"))
    ]


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--repetitions", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=6, help="of audio, per case")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    facts = machine("torch", "encodec")
    results = [result for case in CASES for result in measure(case, args.seconds, args.repetitions)]
    publish(args.json, facts, {f"bench_language_model: {args.seconds} s, one thread": results})


if __name__ == "__main__":
    main()
