"""Single convolutions on the CPU and on cuda:0, in tiles of every shape, full and not, on as many
multiprocessors as there are. A script: see agreement_on_device.py. --small: few rows."""

from __future__ import annotations

import argparse

import numpy as np
from agreement_on_device import same

from encodec_fast import _cuda, _native

# Channels of the input and of the result, kernel, stride: rows and results of which some can be
# read and written as vectors and some cannot, steps of k that fill tiles and that do not.
CONVOLUTIONS = [
    (1, 4, 7, 1),
    (8, 2, 3, 1),
    (20, 16, 1, 1),
    (5, 16, 3, 2),
    (12, 15, 3, 1),
    (32, 32, 3, 2),
    (7, 30, 3, 1),
    (36, 64, 1, 1),
    (16, 50, 4, 2),
    (24, 132, 3, 1),
    (9, 200, 2, 1),
    (11, 131, 3, 1),
    (40, 257, 1, 1),
]


def convolution(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> _native.Graph:
    """With zeros in front, of the ELU of its input."""
    channels, out, kernel, stride = shape
    graph = _native.Graph(channels)
    weight = rng.standard_normal((kernel * channels, out)).astype(np.float32)
    bias = rng.standard_normal(out).astype(np.float32)
    bias[0] = -0.0
    pad = kernel - stride
    graph.conv(0, -1, True, kernel, stride, max(pad, 0), 0, False, weight, bias, None, None, 0.0)
    graph.seal()
    return graph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    processors = 1 if options.small else _cuda.device_info(0)[3]
    for shape in CONVOLUTIONS:
        graph = convolution(rng, shape)
        cpu, device = _native.Network(graph, 3), _cuda.Network(_cuda.DeviceGraph(graph, 0), 3)
        most = 256 * processors * shape[3]  # rows that give each multiprocessor a tile
        for rows in ((1, 6, 33), (most // 2 + 5, 0, most - most // 2 + 7)):
            rows = [n * graph.down for n in rows]
            blocks = [rng.standard_normal((shape[0], n)).astype(np.float32) for n in rows]
            same(f"{shape} of {rows}", *(n.run(blocks, [True] * 3) for n in (cpu, device)))
    print("equal")


if __name__ == "__main__":
    main()
