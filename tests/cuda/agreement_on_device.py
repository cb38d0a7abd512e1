"""Random models on the CPU and on `cuda:0`, be it emulated or real: every byte must be the same.

A script, so that the same checks run where there is a GPU, under compute-sanitizer, and on the
emulated device: python tests/cuda/agreement_on_device.py [--models N] [--seed N] [--wide]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from interleavings import check_lives
from programs import BOOKS, ENTRIES, describe, to_bfloat16, write_program

from encodec_fast import _native
from encodec_fast.codec import Codec
from encodec_fast.program import Program

KINDS = ("reflect", "constant", "ahead", "ahead_constant", "segments")
Rng = np.random.Generator


def same(name: str, cpu: list[npt.NDArray[Any]], device: list[npt.NDArray[Any]]) -> None:
    """Raises AssertionError unless the arrays are the same, bit for bit (not-a-numbers apart)."""
    for lane, (a, b) in enumerate(zip(cpu, device, strict=True)):
        assert a.shape == b.shape and a.dtype == b.dtype, f"{name}: {a.shape} {b.shape}"
        if a.tobytes() == b.tobytes():
            continue
        both = np.isnan(a) & np.isnan(b) if a.dtype.kind == "f" else np.zeros(a.shape, bool)
        unlike = np.argwhere((a.view(f"u{a.itemsize}") != b.view(f"u{b.itemsize}")) & ~both)
        assert not len(unlike), f"{name}: lane {lane} differs first at {unlike[0]}"


def random_program(folder: Path, rng: Rng, kind: str, wide: bool) -> Program:
    """A tiny model whose widths are no multiples of a tile, or one that fills some."""
    width = int(rng.choice([144, 68, 40] if wide else [5, 6, 8, 17, 20]))
    channels = int(rng.integers(1, 3))
    header, tensors = describe(kind, channels, int(rng.integers(1 << 30)), width)
    if rng.integers(3) == 0:
        for name, array in tensors.items():
            if name.endswith(("weight", "recurrent")):
                tensors[name] = to_bfloat16(array)
    books = tensors["codebooks"]
    books[:, -1] = books[:, 0]  # a tie wherever these are the best
    return Program.load(write_program(folder / "model.safetensors", header, tensors))


def blocks_of(
    rng: Rng, program: Program, graph: _native.Graph, started: list[bool], step: int
) -> tuple[list[int], list[bool]]:
    """Lengths and last flags of the next blocks: some rest, end or begin anew; some repeat the
    lengths before, which plays the recorded tape and then its graph."""
    lengths, last = [], []
    for lane, begun in enumerate(started):
        rows, ends = int(rng.integers(0, 5)) * graph.down, bool(rng.integers(4) == 0)
        if step % 8 > 3:
            rows, ends = 2 * graph.down, False
        if not graph.streams:
            rows, ends = int(rng.integers(1, 40)) * max(1, graph.down // 2), True
        if rows and not begun and not ends:
            rows = max(rows, graph.start_rows)
        if ends and graph.streams and rows > 3:
            rows -= int(rng.integers(0, 3))
        started[lane] = (begun or rows > 0) and not ends
        lengths.append(rows)
        last.append(ends)
    return lengths, last


def check_streams(rng: Rng, program: Program, other: Program, lanes: int, low: bool) -> None:
    """Blocks of all sizes through encoders and decoders on both."""
    channels = program.header.channels
    scales = [1.0 + 0.25 * lane for lane in range(lanes)]
    encoders = [p.new_encoder(lanes, low) for p in (program, other)]
    started = [False] * lanes
    for step in range(12):
        lengths, last = blocks_of(rng, program, program.encoder, started, step)
        audio = [samples(rng, channels, n, step) for n in lengths]
        n_q = int(rng.integers(1, BOOKS + 1))
        same("codes", *(e.run(audio, last, scales, n_q) for e in encoders))
    decoders = [p.new_decoder(lanes, low) for p in (program, other)]
    started = [False] * lanes
    for step in range(12):
        lengths, last = blocks_of(rng, program, program.decoder, started, step)
        n_q = int(rng.integers(1, BOOKS + 1))
        codes = [rng.integers(0, ENTRIES, (n_q, n)).astype(np.uint16) for n in lengths]
        same("audio", *(d.run(codes, last, scales) for d in decoders))


def samples(rng: Rng, channels: int, rows: int, step: int) -> npt.NDArray[np.float32]:
    """Noise; now and then so quiet that the first layers compute with denormal numbers, or so loud
    that sums overflow."""
    level = {3: 1e-39, 7: 1e38}.get(step, 1.0)
    audio = rng.standard_normal((channels, rows)) * level
    return np.clip(audio, -3e38, 3e38).astype(np.float32)


def check_networks(rng: Rng, program: Program, other: Program) -> None:
    """The latents and the audio of graphs alone."""
    from encodec_fast import _cuda

    for graph in (program.encoder, program.decoder):
        rows = [int(rng.integers(1, 30)) * graph.down for _ in range(3)]
        blocks = [rng.standard_normal((graph.in_channels, n)).astype(np.float32) for n in rows]
        device = _cuda.Network(_cuda.DeviceGraph(graph, 0), 3)
        cpu = _native.Network(graph, 3)
        for _ in range(3):  # at once, then as a graph
            same("network", *(n.run(blocks, [True] * 3) for n in (cpu, device)))


def check_live_batches(rng: Rng, folder: Path, start: str) -> None:
    """Streams in step, by arrays on the device, and by lists of arrays on the CPU."""
    path, lanes = folder / "model.safetensors", 3
    cpu, device = Codec.load(path), Codec.load(path, device="cuda")

    def audio(length: int) -> npt.NDArray[np.float32]:
        return rng.standard_normal((lanes, cpu.channels, length)).astype(np.float32)

    def codes(length: int) -> npt.NDArray[np.uint16]:
        return rng.integers(0, ENTRIES, (lanes, BOOKS, length)).astype(np.uint16)

    encoders = [c.stream_encoder(12.0, lanes, start) for c in (device, cpu)]
    decoders = [c.stream_decoder(lanes, start) for c in (device, cpu)]
    taken = check_lives(rng, *encoders, audio, cpu.hop) + check_lives(rng, *decoders, codes, 1)
    assert taken > 5, f"{taken} pushes of streams in step"


def check_codec(rng: Rng, folder: Path) -> None:
    """Whole recordings through the public names."""
    path = folder / "model.safetensors"
    cpu, device = Codec.load(path), Codec.load(path, device="cuda")
    wavs = [samples(rng, cpu.channels, int(n), 0) for n in rng.integers(1, 3000, 9)]
    codes = [cpu.encode(wav, 12.0) for wav in wavs]
    for found in ([device.encode(wav, 12.0) for wav in wavs], device.encode_many(wavs, 12.0)):
        for a, b in zip(codes, found, strict=True):
            same("codec", a.codes, b.codes)
            assert a.scales == b.scales
            same("decode", [cpu.decode(a)], [device.decode(b)])
    assert cpu.compress(wavs[0], 12.0) == device.compress(wavs[0], 12.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=1, help="of each kind")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=0, help="streams, 0: a few")
    parser.add_argument("--wide", action="store_true", help="models that fill tiles")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    for _ in range(options.models):
        for kind in options.kinds:
            with tempfile.TemporaryDirectory() as folder:
                program = random_program(Path(folder), rng, kind, options.wide)
                other = program.on("cuda")
                for low in (False, True) if program.encoder.causal else (False,):
                    lanes = options.lanes or int(rng.integers(1, 6))
                    check_streams(rng, program, other, lanes, low)
                    if not program.header.segmented:
                        start = "low_latency" if low else "exact"
                        check_live_batches(rng, Path(folder), start)
                check_networks(rng, program, other)
                check_codec(rng, Path(folder))
            print(f"{kind}: equal", flush=True)


if __name__ == "__main__":
    main()
