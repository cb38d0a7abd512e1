"""What does a GPU make of entropy coding with the language model, against all cores of this
machine, the PyPI package `encodec` on the same card, and the card's limits?

    python benchmarks/bench_gpu_entropy.py [--quick] [--json]

Meta's sizes with random weights at 6 kbps, 24 and 48 kHz. First codes to bytes and back: sequences
of 10 s (48 kHz: 1 s, as its segments are) of random codes, as many at once as the row says. Then
whole recordings, `Codec.compress_many` and `decompress_many`. The floor is the floating-point
operations of the language model (and of the encoder) over the card's float32 peak or, decoding, the
keys and values that every step reads over its bandwidth, whichever takes longer. Needs PyTorch with
CUDA; `encodec` says "not installed" where it is missing. benchmarks/gpu.sh runs it.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from bench_gpu import Line, Row, limits
from bench_language_model import ENTRIES, Reference
from report import machine, parser, publish

from encodec_fast import _native
from encodec_fast.codec import Codec
from encodec_fast.models.config import CONFIGS
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.entropy_export import export_entropy_model
from encodec_fast.models.export import export_model
from encodec_fast.models.lm import PAST_SECONDS, LanguageModel

BANDWIDTH = 6.0
DIM, LAYERS, WIDTH = 200, 5, 800  # of Meta's language models
SECONDS = {"encodec_24khz": 10, "encodec_48khz": 1}  # of a sequence
RECORDING = 10  # seconds

Card = tuple[float, float]
Codes = list[npt.NDArray[np.uint16]]


def codecs(name: str) -> tuple[Codec, Codec]:
    """A model with random weights and its language model, on the CPU and on the card."""
    torch.manual_seed(0)
    model = EncodecModel(CONFIGS[name]).eval()
    for index in range(model.config.n_codebooks):
        model.quantizer.codebook(index).embed.normal_()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / f"{name}.safetensors"
        export_model(model, program)
        path = program.with_suffix(".entropy.safetensors")
        export_entropy_model(name, LanguageModel(CONFIGS[name]), None, path)
        cpu = Codec.load(program, threads=os.cpu_count() or 1)
        device = Codec.load(program, device="cuda")
        for codec in (cpu, device):
            assert codec.entropy_model is not None  # read while the file is there
    return cpu, device


def step_floor(name: str, n_q: int, card: Card, decoding: bool) -> float:
    """The least time of a step of one sequence whose context is full."""
    seen = int(PAST_SECONDS * CONFIGS[name].frame_rate) + 1
    layer = 4 * DIM * DIM + 2 * DIM * WIDTH + 2 * seen * DIM
    flops = 2.0 * (LAYERS * layer + n_q * DIM * ENTRIES)
    moved = 4.0 * LAYERS * 2 * seen * DIM if decoding else 0.0
    return max(flops / card[0], moved / card[1])


def taken(call: Callable[[], Any]) -> tuple[float, Any]:
    """The shorter time of two calls, which wait for their results; the last one's result."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return min(times), result


def on_all_cores(lm: Any, n_q: int, codes: Codes) -> tuple[float, float]:
    """Seconds of encoding and of decoding, 16 streams a thread."""
    groups = [codes[i : i + 16] for i in range(0, len(codes), 16)]
    coders = [_native.LmCoder(lm, n_q, len(group)) for group in groups]

    def each(work: Callable[[int], Any]) -> tuple[float, list[Any]]:
        start = time.perf_counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(work, range(len(groups))))
        return time.perf_counter() - start, results

    def encode(i: int) -> Any:
        return coders[i].encode(list(range(len(groups[i]))), groups[i])

    encoding, data = each(encode)
    for coder, group in zip(coders, groups, strict=True):
        coder.reset(list(range(len(group))))

    def decode(i: int) -> Any:
        lanes, frames = list(range(len(groups[i]))), [c.shape[1] for c in groups[i]]
        return coders[i].decode(lanes, data[i], frames)

    return encoding, each(decode)[0]


def reference_rates(name: str, n_q: int) -> tuple[str, str]:
    """Hours of audio per second of `encodec`'s language model on the card, one sequence of 1 s, as
    its compress() and decompress() run it."""
    config = CONFIGS[name]
    try:
        peer = Reference(config.n_codebooks, int(PAST_SECONDS * config.frame_rate), "cuda")
    except ImportError:
        return "not installed", "not installed"
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, ENTRIES, (n_q, int(config.frame_rate)), np.uint16)]
    encoding, data = taken(lambda: peer.encode(codes))
    decoding, _ = taken(lambda: peer.decode(data, codes))
    return f"{1 / 3600 / encoding:.5f}", f"{1 / 3600 / decoding:.5f}"


def sequences(name: str, cpu: Codec, device: Codec, card: Card, counts: list[int]) -> list[Row]:
    """Codes to bytes and back."""
    assert cpu.entropy_model is not None
    lm, n_q, seconds = cpu.entropy_model.lm, cpu.n_q(BANDWIDTH), SECONDS[name]
    steps = int(CONFIGS[name].frame_rate) * seconds
    peer = reference_rates(name, n_q)
    rng = np.random.default_rng(1)
    few = [rng.integers(0, ENTRIES, (n_q, steps), np.uint16) for _ in range(32)]
    cores = on_all_cores(lm, n_q, few)
    expected = _native.LmCoder(lm, n_q, 1).encode([0], few[:1])
    rows = []
    for count in counts:
        codes = [few[i % 32] for i in range(count)]
        lanes = list(range(count))
        weights = device.program.device
        assert weights is not None and lm is not None
        coder = weights.new_lm_coder(lm, n_q, count)

        def encode(coder: Any = coder, lanes: list[int] = lanes, codes: Codes = codes) -> Any:
            coder.reset(lanes)
            return coder.encode(lanes, codes)

        encoding, data = taken(encode)

        def decode(coder: Any = coder, lanes: list[int] = lanes, data: Any = data) -> Any:
            coder.reset(lanes)
            return coder.decode(lanes, data, [steps] * len(lanes))

        decoding, found = taken(decode)
        exact = data[0] == expected[0] and all(
            np.array_equal(a, b) for a, b in zip(codes, found, strict=True)
        )
        hours = count * seconds / 3600
        row = {"model": name, "sequences": str(count), "bytes as on the CPU": str(exact)}
        for direction, took, slow, theirs in (
            ("encode", encoding, cores[0], peer[0]),
            ("decode", decoding, cores[1], peer[1]),
        ):
            least = count * steps * step_floor(name, n_q, card, direction == "decode")
            row[f"{direction}, h/s"] = f"**{hours / took:.3f}**"
            row[f"{direction}: floor, h/s"] = f"{hours / least:.3f}"
            row[f"{direction}: all cores, h/s"] = f"{len(few) * seconds / 3600 / slow:.4f}"
            row[f"{direction}: encodec on the card, h/s"] = theirs
        rows.append(row)
    return rows


def recordings(name: str, cpu: Codec, device: Codec, counts: list[int]) -> list[Row]:
    """Samples to files and back, all of it."""
    rng = np.random.default_rng(2)
    shape = (cpu.channels, RECORDING * cpu.sample_rate)
    few = [0.1 * rng.standard_normal(shape, np.float32) for _ in range(8)]
    rows = []
    for count in counts:
        wavs = [few[i % 8] for i in range(count)]
        row = {"model": name, f"recordings of {RECORDING} s": str(count)}
        files: dict[str, Any] = {}
        # The CPU takes as many as it has cores for.
        for label, codec, given in (("card", device, wavs), ("all cores", cpu, wavs[:16])):
            hours = len(given) * RECORDING / 3600
            took, files[label] = taken(
                lambda c=codec, w=given: c.compress_many(w, BANDWIDTH, entropy="lm")  # type: ignore[misc]  # lambdas have no annotations
            )
            row[f"compress, {label}, h/s"] = f"{hours / took:.4f}"
            took, _ = taken(lambda c=codec, d=files[label]: c.decompress_many(d))  # type: ignore[misc]  # as above
            row[f"decompress, {label}, h/s"] = f"{hours / took:.4f}"
        row["files as on the CPU"] = str(files["card"][:16] == files["all cores"])
        rows.append(row)
    return rows


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options = arguments.parse_args()
    card = limits()
    facts = machine("torch", "encodec")
    facts["card"] = torch.cuda.get_device_name()
    facts["float32 peak, TFLOP/s"] = f"{card[0] / 1e12:.1f}"
    facts["copy, GB/s"] = f"{card[1] / 1e9:.0f}"
    counts = [1, 16] if options.quick else [1, 16, 64, 256, 1024, 4096]
    sizes = [4] if options.quick else [16, 128]
    coded: list[Row] = []
    whole: list[Row] = []
    for name in SECONDS:
        cpu, device = codecs(name)
        coded += sequences(name, cpu, device, card, counts)
        whole += recordings(name, cpu, device, sizes)
    sections = {
        "entropy coding with the language model, 6 kbps: codes to bytes and back": coded,
        "whole recordings with the language model, 6 kbps": whole,
    }
    lines = {title: [Line(row) for row in table] for title, table in sections.items()}
    publish(options.json, facts, lines)


if __name__ == "__main__":
    main()
