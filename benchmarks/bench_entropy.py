"""How fast are the entropy coders and the bit packer, against `constriction` and `encodec`?

    python benchmarks/bench_entropy.py [--symbols 1000] [--repetitions 15] [--json]

One thread; numpy arrays in, bytes out, and back, through each package's public calls, in turn.

- "a distribution per symbol": a block of distributions over 1024 symbols (softmaxes of normal
  logits, about 7 bits a symbol; 4 MB for a thousand of them, and each timed call follows one of its
  kind: it stays in cache) and the symbols drawn from them; against constriction's range coder and
  its categorical model.
- "one distribution": a million symbols by the first of these distributions; each side's tables are
  built within the time.
- "the reference's coder": the same block through `encodec`'s functions and through ours, which give
  the same bytes.
- "packed bits": a million codes of 10 bits, against `encodec`'s packer on a hundredth of them.

"over entropy" is how much longer the bytes are than the symbols' information. Peers: see
benchmarks/requirements.txt.
"""

from __future__ import annotations

import io
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt
import torch
from report import machine, parser, publish
from timing import ratio_cells, timed

import encodec_fast as ef
from encodec_fast import _native

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from peers import import_encodec

ENTRIES = 1024
SHARED = 1_000_000
BITS = 10


@dataclass(frozen=True)
class Coding:
    """Seconds per repetition of one direction; a peer may do fewer symbols than we do."""

    case: str
    direction: str
    peer: str
    peer_symbols: int
    our_symbols: int
    peer_seconds: list[float]
    our_seconds: list[float]
    over_entropy: str

    def cells(self) -> dict[str, str]:
        """A row: both rates, their ratio and its range."""
        theirs = [s / self.peer_symbols for s in self.peer_seconds]
        ours = [s / self.our_symbols for s in self.our_seconds]
        return {
            "case": self.case,
            "direction": self.direction,
            "peer": self.peer,
            "peer, M symbols/s": f"{1e-6 / statistics.median(theirs):.3g}",
            "ours, M symbols/s": f"{1e-6 / statistics.median(ours):.3g}",
            **ratio_cells(theirs, ours),
            "over entropy, peer and ours": self.over_entropy,
        }


Call = Callable[[], Any]


def after_itself(call: Call) -> float:
    """Seconds of a call that follows one of its kind, which leaves the block in cache."""
    call()
    return timed(call)[0]


def compare(
    case: str,
    peer: str,
    symbols: tuple[int, int],
    calls: tuple[tuple[Call, Call], tuple[Call, Call]],
    over_entropy: str,
    repetitions: int,
) -> list[Coding]:
    """Time (theirs, ours) of encoding, then of decoding."""
    times = [[after_itself(call) for pair in calls for call in pair] for _ in range(repetitions)]
    columns = [list(column) for column in zip(*times, strict=True)]
    return [
        Coding(case, "encode", peer, *symbols, columns[0], columns[1], over_entropy),
        Coding(case, "decode", peer, *symbols, columns[2], columns[3], ""),
    ]


def distributions(rows: int) -> npt.NDArray[np.float32]:
    """Softmaxes float32 [rows, ENTRIES] of normal logits."""
    rng = np.random.default_rng(1)
    p = np.exp(2 * rng.standard_normal((rows, ENTRIES)))
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def drawn(p: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.uint16]:
    """`count` symbols: by row, or all by the only one."""
    sums = p.cumsum(axis=1, dtype=np.float64)
    places = np.random.default_rng(2).random(count)
    if len(p) == 1:
        found = np.searchsorted(sums[0], places)
    else:
        found = (sums > places[:, None]).argmax(axis=1)
    return np.minimum(found, ENTRIES - 1).astype(np.uint16)


def range_coders(rows: int, repetitions: int) -> list[Coding]:
    """A distribution per symbol, and one for all."""
    family = constriction.stream.model.Categorical(perfect=False)
    results: list[Coding] = []
    block = distributions(rows)
    for case, p, count in (
        ("a distribution per symbol", block, rows),
        ("one distribution", block[:1], SHARED),
    ):
        symbols = drawn(p, count)
        shared = len(p) == 1
        model = p[0] if shared else p
        theirs_in = symbols.astype(np.int32)

        def their_encode(
            p: npt.NDArray[np.float32] = p, symbols: Any = theirs_in, shared: bool = shared
        ) -> Any:
            encoder = constriction.stream.queue.RangeEncoder()
            if shared:
                encoder.encode(symbols, constriction.stream.model.Categorical(p[0], perfect=False))
            else:
                encoder.encode(symbols, family, p)
            return encoder.get_compressed()

        def our_encode(model: Any = model, symbols: Any = symbols) -> bytes:
            encoder = ef.RangeEncoder()
            encoder.push(symbols, model)
            return encoder.flush()

        there, here = their_encode(), our_encode()

        def their_decode(
            p: npt.NDArray[np.float32] = p, data: Any = there, count: int = count
        ) -> Any:
            decoder = constriction.stream.queue.RangeDecoder(data)
            if len(p) == 1:
                fixed = constriction.stream.model.Categorical(p[0], perfect=False)
                return decoder.decode(fixed, count)
            return decoder.decode(family, p)

        def our_decode(model: Any = model, data: bytes = here, count: int = count) -> Any:
            return ef.RangeDecoder(data).pull(model, count)

        assert np.array_equal(their_decode(), symbols) and np.array_equal(our_decode(), symbols)
        information = -np.log2(p[np.arange(count) % len(p), symbols], dtype=np.float64).sum() / 8
        over = ", ".join(f"{size / information - 1:.3%}" for size in (there.nbytes, len(here)))
        results += compare(
            case,
            "constriction",
            (count, count),
            ((their_encode, our_encode), (their_decode, our_decode)),
            over,
            repetitions,
        )
    return results


def reference_coder(rows: int, repetitions: int) -> list[Coding]:
    """The arithmetic coder of version 0."""
    import_encodec()
    from encodec.quantization import ac

    p = distributions(rows)
    symbols = drawn(p, rows)
    tensors = list(torch.from_numpy(p))

    def their_encode() -> bytes:
        file = io.BytesIO()
        coder = ac.ArithmeticCoder(file)
        for symbol, row in zip(symbols.tolist(), tensors, strict=True):
            coder.push(symbol, ac.build_stable_quantized_cdf(row, 24, check=False))
        coder.flush()
        return file.getvalue()

    def our_encode() -> bytes:
        encoder = ef.ArithmeticEncoder()
        encoder.push(symbols, p)
        return encoder.flush()

    data = their_encode()
    assert our_encode() == data

    def their_decode() -> list[Any]:
        decoder = ac.ArithmeticDecoder(io.BytesIO(data))
        return [
            decoder.pull(ac.build_stable_quantized_cdf(row, 24, check=False)) for row in tensors
        ]

    def our_decode() -> Any:
        return ef.ArithmeticDecoder(data).pull(p)

    assert their_decode() == our_decode().tolist()
    calls = ((their_encode, our_encode), (their_decode, our_decode))
    return compare("the reference's coder", "encodec", (rows, rows), calls, "", repetitions)


def packed_bits(repetitions: int) -> list[Coding]:
    """The packer of files without entropy coding."""
    import_encodec()
    from encodec import binary

    codes = np.random.default_rng(3).integers(0, 1 << BITS, SHARED).astype(np.uint16)
    few = codes[: SHARED // 100].tolist()

    def their_pack() -> bytes:
        file = io.BytesIO()
        packer = binary.BitPacker(BITS, file)
        for code in few:
            packer.push(code)
        packer.flush()
        return file.getvalue()

    def our_pack() -> bytes:
        packer = _native.BitPacker(BITS)
        return packer.push(codes) + packer.flush()

    part, whole = their_pack(), our_pack()
    assert whole.startswith(part)

    def their_unpack() -> list[Any]:
        unpacker = binary.BitUnpacker(BITS, io.BytesIO(part))
        return [unpacker.pull() for _ in few]

    def our_unpack() -> Any:
        return _native.BitUnpacker(BITS).push(whole)

    assert their_unpack() == few and np.array_equal(our_unpack(), codes)
    calls = ((their_pack, our_pack), (their_unpack, our_unpack))
    sizes = (len(few), len(codes))
    return compare("packed bits", "encodec", sizes, calls, "", repetitions)


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--symbols", type=int, default=1000, help="distributions in the block")
    arguments.add_argument("--repetitions", type=int, default=15)
    args = arguments.parse_args()
    torch.set_num_threads(1)
    facts = machine("constriction", "encodec")
    results = range_coders(args.symbols, args.repetitions)
    results += reference_coder(args.symbols, args.repetitions)
    results += packed_bits(args.repetitions)
    title = f"bench_entropy: one thread, {args.repetitions} repetitions"
    publish(args.json, facts, {title: results})


if __name__ == "__main__":
    main()
