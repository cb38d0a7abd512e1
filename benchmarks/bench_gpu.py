"""What does a GPU make of the codec, against PyTorch on the same card and its limits?

    python benchmarks/bench_gpu.py [--quick] [--json]

Vector quantisation of latents that are on the card; encoding of batches of 10 s at 24 kHz, samples
in host memory to codes there, by `encode_many` and by transformers' EncodecModel after
`accelerate`, against that model as it was (eager and compiled, each with and without TF32); live
streams at 48 kHz, a frame per step. Beside each figure is its floor: the floating-point operations
over the card's float32 peak or the bytes over its bandwidth, whichever takes longer. The peak is
that of cuBLAS without TF32, measured in this run. Needs PyTorch with CUDA; rows whose peer is
missing say so. Each table is printed as soon as it is there, and peers that the time does not
suffice for are left out: a compiler can take longer than all else together. benchmarks/gpu.sh runs
it after the tests.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import machine, parser, publish
from timing import p99

import encodec_fast as ef
from encodec_fast import _native
from encodec_fast.codec import Codec
from encodec_fast.integrations.on_device import DeviceCodebooks
from encodec_fast.models.config import CONFIGS
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.export import export_model

Row = dict[str, str]


@dataclass(frozen=True)
class Line:
    """A row of a table, as text by column."""

    values: Row

    def cells(self) -> Row:
        return self.values


SECONDS, RATE = 10, 24000
PATIENCE = 150  # seconds after which no other peer is begun
BEGUN = time.monotonic()


def seconds_of(call: Callable[[], Any], repeats: int = 5) -> float:
    """The median time of a call that may only queue its work, after two to warm up."""
    times = []
    for turn in range(repeats + 2):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if turn > 1:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextmanager
def memory_used(peak: list[int]) -> Iterator[None]:
    """Appends the most bytes of the card that were taken in addition, by whatever library."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = least = torch.cuda.mem_get_info()[0]
    done = threading.Event()

    def watch() -> None:
        nonlocal least
        while not done.wait(0.002):
            least = min(least, torch.cuda.mem_get_info()[0])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        peak.append(before - least)


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """TF32 in matrix products and in convolutions (where it is PyTorch's default)."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def limits() -> tuple[float, float]:
    """Float32 operations per second of cuBLAS, and bytes per second of a copy (both ways)."""
    a = torch.randn(8192, 8192, device="cuda")
    with tf32(False):
        peak = 2 * 8192**3 / seconds_of(lambda: a @ a, 3)
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return peak, 2 * source.numel() / seconds_of(lambda: target.copy_(source))


def floor_seconds(flops: float, moved: float, card: tuple[float, float]) -> float:
    """The least time that the card needs."""
    return max(flops / card[0], moved / card[1])


# --- vector quantisation --------------------------------------------------------------------------


def torch_search(latents: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    """Codes [n_q, rows] as the reference finds them: a matrix of distances per codebook."""
    residual, codes = latents, []
    for book in books:
        scores = residual @ book.T * 2 - book.pow(2).sum(1)
        index = scores.argmax(1)
        residual = residual - book[index]
        codes.append(index)
    return torch.stack(codes)


def quantisation(card: tuple[float, float], rows: int, n_q: int) -> Row:
    """One direction that matters: latents to codes."""
    generator = torch.Generator().manual_seed(0)
    scale = 0.85 ** torch.arange(n_q)
    books = torch.randn(n_q, 1024, 128, generator=generator) * scale[:, None, None]
    latents = torch.randn(rows, 128, generator=generator)
    native = _native.Codebooks(books.numpy())
    there = DeviceCodebooks(native, torch.device("cuda", 0))
    ours_in, theirs_in, theirs = latents.cuda(), latents.cuda(), books.cuda()
    memory: list[int] = []
    with memory_used(memory):
        codes = there.encode(ours_in, n_q)
    with tf32(False):
        with memory_used(memory):
            expected = torch_search(theirs_in, theirs)
        peer = seconds_of(lambda: torch_search(theirs_in, theirs), 3)
    ours = seconds_of(lambda: there.encode(ours_in, n_q), 3)
    few = latents[:2000].numpy()
    exact = np.array_equal(native.encode(few, n_q), codes[:, :2000].cpu().numpy())
    flops = 2.0 * rows * n_q * 1024 * 128
    least = floor_seconds(flops, rows * (512 + 2 * n_q), card)
    same = (codes == expected).float().mean().item()
    return {
        "latents, n_q": f"[{rows}, 128], {n_q}",
        "PyTorch, ms": f"{1e3 * peer:.1f}",
        "ours, ms": f"{1e3 * ours:.1f}",
        "ratio": f"**{peer / ours:.2f}**",
        "floor, ms": f"{1e3 * least:.1f}",
        "share of peak": f"{100 * least / ours:.0f} %",
        "memory, theirs / ours, MB": f"{memory[1] / 1e6:.0f} / {memory[0] / 1e6:.0f}",
        "codes as on the CPU": "all" if exact else "NO",
        "as PyTorch": f"{100 * same:.2f} %",
    }


# --- batches --------------------------------------------------------------------------------------


def transformers_model(model: EncodecModel) -> Any:
    """transformers' EncodecModel with the same weights on the card, None where it is missing."""
    try:
        from transformers import EncodecConfig
        from transformers import EncodecModel as TransformersModel
    except ImportError:
        return None
    theirs = TransformersModel(EncodecConfig()).eval()
    theirs.load_state_dict(model.state_dict())
    return theirs.cuda()


def peers(model: EncodecModel) -> dict[str, tuple[Any, bool]]:
    """Encoders by name, each with whether TF32 is on."""
    theirs = transformers_model(model)
    if theirs is None:
        return {}
    compiled = torch.compile(theirs.encode, dynamic=False)
    return {
        "transformers": (theirs.encode, False),
        "transformers, TF32": (theirs.encode, True),
        "compiled": (compiled, False),
        "compiled, TF32": (compiled, True),
    }


def accelerated(model: EncodecModel, cpu: Codec, wav: Any) -> tuple[Any, str]:
    """transformers' model on the card after `accelerate`, and whether its codes are the CPU's."""
    ours = transformers_model(model)
    if ours is None:
        return None, ""
    ef.accelerate(ours, quiet=True)
    with torch.no_grad():
        found = ours.encode(torch.from_numpy(wav)[None].cuda(), bandwidth=6.0).audio_codes
    same = np.array_equal(found[0, 0].cpu().numpy(), cpu.encode(wav, 6.0).codes[0])
    return ours, "all" if same else "NO"


def run_peer(call: Any, on: bool, batch: int) -> tuple[str, str]:
    """Hours of audio per second and MB of memory of a peer, or why there are none."""
    if time.monotonic() - BEGUN > PATIENCE:
        return "no time", ""
    audio = torch.randn(batch, 1, SECONDS * RATE).mul_(0.1).pin_memory()

    def run() -> None:
        with torch.no_grad(), tf32(on):
            call(audio.cuda(non_blocking=True), bandwidth=6.0)[0].cpu()

    memory: list[int] = []
    try:
        with memory_used(memory):
            run()
        rate = batch * SECONDS / 3600 / seconds_of(run, 3)
    except Exception as error:  # a peer that cannot: the table says so
        torch.cuda.empty_cache()
        return type(error).__name__, ""
    return f"{rate:.3f}", f"{memory[0] / 1e6:.0f}"


def encoder_flops(codec: Codec, model: EncodecModel) -> float:
    """Float32 operations per second of audio: convolutions, LSTM and codebooks at 6 kbps."""
    macs = 0.0
    rate = float(RATE)
    for module in model.encoder.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, torch.nn.Conv1d):
            rate /= module.stride[0]
            macs += rate * weight.numel()
        elif isinstance(module, torch.nn.LSTM):
            macs += rate * sum(p.numel() for n, p in module.named_parameters() if "weight" in n)
    return 2.0 * (macs + RATE / codec.hop * codec.n_q(6.0) * codec.codebook_size * 128)


def batches(card: tuple[float, float], sizes: list[int]) -> list[Row]:
    """Recordings of 10 s, as many at once as a size says."""
    torch.manual_seed(0)
    model = EncodecModel(CONFIGS["encodec_24khz"]).eval()
    for index in range(model.config.n_codebooks):
        model.quantizer.codebook(index).embed.normal_()
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, Path(folder) / "program.safetensors")
        cpu = Codec.load(Path(folder) / "program.safetensors")
        codec = Codec.load(Path(folder) / "program.safetensors", device="cuda")
    least = card[0] / encoder_flops(codec, model) / 3600
    first = (0.1 * np.random.default_rng(0).standard_normal((1, SECONDS * RATE))).astype(np.float32)
    ours, same = accelerated(model, cpu, first)
    rows = []
    for batch in sizes:
        wavs = [np.random.default_rng(i).standard_normal((1, SECONDS * RATE)) for i in range(batch)]
        audio = [(0.1 * wav).astype(np.float32) for wav in wavs]
        memory: list[int] = []
        with memory_used(memory):
            codes = codec.encode_many(audio, 6.0)
        rate = batch * SECONDS / 3600 / seconds_of(lambda a=audio: codec.encode_many(a, 6.0), 3)
        exact = np.array_equal(cpu.encode(audio[0], 6.0).codes[0], codes[0].codes[0])
        row = {
            "batch": str(batch),
            "ours, h/s": f"{rate:.3f}",
            "floor, h/s": f"{least:.3f}",
            "MB": f"{memory[0] / 1e6:.0f}",
            "codes as on the CPU": "all" if exact else "NO",
        }
        if ours is not None:
            row["accelerated, h/s"], row["accelerated, MB"] = run_peer(ours.encode, False, batch)
            row["accelerated: codes as on the CPU"] = same
        print(f"batch {batch}: {rate:.3f} h/s", file=sys.stderr, flush=True)
        rows.append(row)
    others = peers(model)
    for name, (call, on) in others.items():
        for row, batch in zip(rows, sizes, strict=True):
            row[f"{name}, h/s"], row[f"{name}, MB"] = run_peer(call, on, batch)
    return rows if others else [{**row, "transformers, h/s": "not installed"} for row in rows]


# --- live streams ---------------------------------------------------------------------------------


def live(streams: int, steps: int) -> Row:
    """Both directions of `streams` streams of the bundled 48 kHz model, a frame per step."""
    codec = Codec.load("stereo_48khz", device="cuda")
    encoder, decoder = codec.stream_encoder(None, streams), codec.stream_decoder(streams)
    rng = np.random.default_rng(0)
    audio = rng.standard_normal((steps, streams, codec.channels, codec.hop)).astype(np.float32)
    times: tuple[list[float], list[float]] = ([], [])
    for chunk in 0.1 * audio:
        start = time.perf_counter()
        codes = encoder.push(chunk)
        middle = time.perf_counter()
        decoder.push(codes)
        times[0].append(middle - start)
        times[1].append(time.perf_counter() - middle)
    frame = codec.hop / codec.sample_rate
    both = [a + b for a, b in zip(*times, strict=True)][steps // 5 :]
    return {
        "streams": str(streams),
        "encode, median ms": f"{1e3 * statistics.median(times[0]):.2f}",
        "decode, median ms": f"{1e3 * statistics.median(times[1]):.2f}",
        "both, p99 ms": f"{1e3 * p99(both):.2f}",
        "a frame lasts, ms": f"{1e3 * frame:.2f}",
        "in real time": "yes" if p99(both) < frame else "no",
    }


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    options = arguments.parse_args()
    card = limits()
    facts = machine("torch", "transformers")
    facts["card"] = torch.cuda.get_device_name()
    facts["float32 peak, TFLOP/s"] = f"{card[0] / 1e12:.1f}"
    facts["copy, GB/s"] = f"{card[1] / 1e9:.0f}"
    sizes = [1, 8] if options.quick else [1, 8, 32, 128, 256]
    rows = 20000 if options.quick else 64 * 7500
    streams = [1, 64] if options.quick else [1, 64, 256, 512, 1024, 2048]
    steps = 60 if options.quick else 300
    sections: dict[str, Callable[[], list[Row]]] = {
        "vector quantisation": lambda: [quantisation(card, rows, n_q) for n_q in (8, 32)],
        "48 kHz live streams": lambda: [live(n, steps) for n in streams],
        "24 kHz, batches of 10 s": lambda: batches(card, sizes),
    }
    lines = {}
    for title, measure in sections.items():
        lines[title] = [Line(row) for row in measure()]
        if not options.json:
            publish(False, facts, {title: lines[title]})
    if options.json:
        publish(True, facts, lines)


if __name__ == "__main__":
    main()
