"""Random language models on the CPU and on `cuda:0`, be it emulated or real: bytes, codes and
probabilities must be the same. A script: see agreement_on_device.py.

    python tests/cuda/lm_on_device.py [--shapes NAME ...] [--calls N] [--lanes N] [--seed N]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from agreement_on_device import Rng, same
from language_models import CodeArray, Sizes, native_model, random_codes, random_weights

from encodec_fast import _core, _cuda

# Widths that are no multiples of a tile and some that are; heads of 1 to 72 channels; rings that
# wrap after 1 to 150 steps; pasts so long that a run has few rows.
SHAPES = {
    "odd": Sizes(),
    "heads of 25": Sizes(dim=50, heads=2, layers=1, past=20, entries=33, width=70),
    "heads of 40": Sizes(dim=80, heads=2, layers=1, past=17, entries=300, codebooks=2),
    "one head of 72": Sizes(dim=72, heads=1, layers=2, past=30, entries=64, codebooks=2),
    "short past": Sizes(dim=4, heads=4, layers=3, past=1, entries=2, codebooks=1, width=1),
    "long past": Sizes(dim=18, heads=1, layers=1, past=150, entries=16, codebooks=2, width=16),
    "longer past": Sizes(dim=8, heads=2, layers=1, past=1500, entries=16, codebooks=1, width=8),
    "longest past": Sizes(dim=8, heads=2, layers=1, past=4095, entries=16, codebooks=1, width=8),
    "peaked": Sizes(past=5, scale=6.0),
}


class Pair:
    """The same coder on both."""

    def __init__(self, model: Any, n_q: int, lanes: int) -> None:
        weights = _cuda.DeviceLanguageModel(model, 0)
        self.cpu = _core.LmCoder(model, n_q, lanes)
        self.device = _cuda.LmCoder(weights, n_q, lanes)

    def encode(self, lanes: list[int], codes: list[CodeArray]) -> list[bytes]:
        expected: list[bytes] = self.cpu.encode(lanes, codes)
        assert self.device.encode(lanes, codes) == expected, "bytes differ"
        return expected

    def decode(
        self, lanes: list[int], data: list[bytes], frames: list[int]
    ) -> list[CodeArray | None]:
        expected: list[CodeArray | None] = self.cpu.decode(lanes, data, frames)
        found = self.device.decode(lanes, data, frames)
        for a, b in zip(expected, found, strict=True):
            assert (a is None) == (b is None), "damaged on one alone"
            if a is not None:
                same("codes", [a], [b])
        return expected

    def probabilities(self, lanes: list[int], codes: list[CodeArray]) -> None:
        same(
            "probabilities",
            self.cpu.probabilities(lanes, codes),
            self.device.probabilities(lanes, codes),
        )

    def reset(self, lanes: list[int]) -> None:
        self.cpu.reset(lanes)
        self.device.reset(lanes)


def spoil(rng: Rng, data: bytes) -> bytes:
    """Damaged, cut, longer, or nothing of it left."""
    kind, bad = int(rng.integers(5)), bytearray(data)
    if kind == 0 and bad:
        bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del bad[int(rng.integers(len(bad) + 1)) :]
    elif kind == 2:
        bad += rng.bytes(int(rng.integers(1, 20)))
    elif kind == 3:
        bad = bytearray(rng.bytes(int(rng.integers(100))))
    else:
        bad = bytearray(b"\xff" * int(rng.integers(100)))
    return bytes(bad)


def check_coder(rng: Rng, sizes: Sizes, lanes: int, calls: int, steps: int) -> None:
    """Streams that rest, begin anew, end within a call, go on in the next one, and break."""
    weights = random_weights(int(rng.integers(1 << 30)), sizes)
    model = native_model(weights, sizes, bool(rng.integers(2)))
    n_q = int(rng.integers(1, sizes.codebooks + 1))
    writers, readers = Pair(model, n_q, lanes), Pair(model, n_q, lanes)
    for call in range(calls):
        some = rng.permutation(lanes)[: int(rng.integers(1, lanes + 1))].tolist()
        again = [lane for lane in some if rng.integers(4) == 0]
        writers.reset(again)
        readers.reset(again)
        frames = [int(n) for n in rng.integers(0, steps + 1, len(some))]
        codes = [random_codes(int(rng.integers(1 << 30)), n_q, n, sizes.entries) for n in frames]
        if call % 4 == 3:  # in blocks of another size, as the contexts go on
            writers.probabilities(some, codes)
            readers.probabilities(some, codes)
            continue
        data = writers.encode(some, codes)
        broken = {i for i in range(len(some)) if call % 2 and rng.integers(3) == 0}
        given = [spoil(rng, d) if i in broken else d for i, d in enumerate(data)]
        found = readers.decode(some, given, frames)
        for i, expected in enumerate(codes):
            if i not in broken:
                same("decoded", [expected], [found[i]])  # type: ignore[list-item]  # None fails
        lost = [some[i] for i in broken]
        writers.reset(lost)
        readers.reset(lost)


def check_refusals() -> None:
    """Streams that failed must be reset; the others go on; hostile lengths end early."""
    sizes = Sizes()
    weights = random_weights(6, sizes)
    weights["books"][1][2][:] = np.nan
    pair = Pair(native_model(weights, sizes), 3, 2)
    codes = random_codes(0, 3, 5, sizes.entries)
    for coder in (pair.cpu, pair.device):
        messages = []
        for lanes in ([1], [0, 1]):
            try:
                coder.encode(lanes, [codes] * len(lanes))
            except ValueError as error:
                messages.append(str(error))
        assert "its probabilities are not finite" in messages[0], messages
        assert "the last call for 1 failed; it must be reset" in messages[1], messages
        assert coder.decode([0], [b"12345678"], [5]) == [None]
        coder.reset([0, 1])
    pair.probabilities([0, 1], [codes, codes])
    pair = Pair(native_model(random_weights(7, sizes), sizes), 3, 3)
    data = pair.encode([0, 2], [codes, codes])
    pair.reset([0, 2])
    assert pair.decode([0, 1, 2], [data[0], b"", data[1]], [1 << 24, 1 << 24, 5])[0] is None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--lanes", type=int, default=0, help="streams, 0: 1 to 6")
    parser.add_argument("--steps", type=int, default=40, help="of a stream and call, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    for shape in options.shapes:
        lanes = options.lanes or int(rng.integers(1, 7))
        check_coder(rng, SHAPES[shape], lanes, options.calls, options.steps)
        print(f"{shape}: equal", flush=True)
    check_refusals()
    print("refusals: equal")


if __name__ == "__main__":
    main()
