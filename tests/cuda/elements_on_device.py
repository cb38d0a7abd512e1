"""ELU, sigmoid and tanh of float32 numbers of every kind, and LSTM layers alone, on the CPU and on
cuda:0, bit for bit. A script: see agreement_on_device.py. --stride N takes every N-th bit pattern
(1: all 2^32)."""

from __future__ import annotations

import argparse

import numpy as np
from agreement_on_device import same

from encodec_fast import _cuda, _native

CHUNK = 1 << 24


def elu_graph() -> _native.Graph:
    """ELU alone: fma(elu(x), 1, -0) changes no bit."""
    graph = _native.Graph(1)
    one, zero = np.ones((1, 1), np.float32), np.full(1, -0.0, np.float32)
    graph.conv(0, -1, True, 1, 1, 0, 0, False, one, zero, None, None, 0.0)
    graph.seal()
    return graph


def cell_graph(units: int) -> _native.Graph:
    """An LSTM whose gates are its input, so that every unit's are numbers of their own."""
    graph = _native.Graph(units)
    weight = np.tile(np.eye(units, dtype=np.float32), (1, 4))
    recurrent = np.zeros((units, 4 * units), np.float32)
    graph.lstm(0, -1, False, weight, recurrent, np.full(4 * units, -0.0, np.float32))
    graph.seal()
    return graph


def check_recurrence(rng: np.random.Generator, units: int, lanes: int) -> None:
    """An LSTM in blocks of unequal lengths, in which streams rest and end."""
    graph = _native.Graph(units)
    weight, recurrent = rng.standard_normal((2, units, 4 * units)).astype(np.float32) / 4
    bias = rng.standard_normal(4 * units).astype(np.float32)
    graph.lstm(0, -1, True, weight, recurrent, bias)
    graph.seal()
    cpu = _native.Network(graph, lanes)
    device = _cuda.Network(_cuda.DeviceGraph(graph, 0), lanes)
    for _ in range(3):
        rows, last = rng.integers(0, 4, lanes), (rng.integers(0, 3, lanes) == 0).tolist()
        blocks = [rng.standard_normal((units, n)).astype(np.float32) for n in rows]
        same(f"{units} units, {lanes} streams", *(n.run(blocks, last) for n in (cpu, device)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stride", type=int, default=99991)
    options = parser.parse_args()
    graph = elu_graph()
    cpu, device = _native.Network(graph, 1), _cuda.Network(_cuda.DeviceGraph(graph, 0), 1)
    for begin in range(0, 1 << 32, CHUNK * options.stride):
        bits = np.arange(begin, min(begin + CHUNK * options.stride, 1 << 32), options.stride)
        x = [bits.astype(np.uint32).view(np.float32)[None]]
        same("elu", cpu.run(x, [True]), device.run(x, [True]))
    # Finite: a sum over k that meets an infinity is not a number in all units.
    rng = np.random.default_rng(0)
    units, lanes, steps = 16, 40, 4
    cells = cell_graph(units)
    cpu = _native.Network(cells, lanes)
    device = _cuda.Network(_cuda.DeviceGraph(cells, 0), lanes)
    for level in (1e-38, 1e-8, 1.0, 10.0, 1e30):
        blocks = rng.standard_normal((lanes, units, steps)).astype(np.float32) * np.float32(level)
        same("cell", *(n.run(list(blocks), [True] * lanes) for n in (cpu, device)))
    # Each shape of its blocks, full and not.
    for units, lanes in ((45, 3), (64, 8), (33, 20), (64, 128), (45, 140)):
        check_recurrence(rng, units, lanes)
    print("equal")


if __name__ == "__main__":
    main()
