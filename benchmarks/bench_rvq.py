"""How fast is vector quantisation, against the PyPI package `encodec`?

    python benchmarks/bench_rvq.py [--n-q 8 32] [--batches 1 16] [--frames 750] [--json]

`Codebooks.encode` and `.decode` against the reference's own quantiser, which scores every entry by
a matrix of distances: 1024 entries of 128 numbers per codebook, float32, one thread each, in turn.
Each side gets latents laid out as its encoder leaves them, [batch, 128, frames] there and
[batch * frames, 128] here. Latents have the falling spectrum of real ones and codebooks are fitted
to such latents, so that near-ties are as frequent as in use. GMAC/s count the plain search, one
multiply-accumulate per number of every entry, whatever a side really does.
Peers: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from report import machine, parser, publish
from timing import ratio_cells, timed

from encodec_fast import _native

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from peers import import_encodec

ENTRIES, DIMENSION = 1024, 128
FIT_ROWS = 8192


@dataclass(frozen=True)
class Quantisation:
    """Seconds per repetition of one direction, and how far the two sides agree."""

    direction: str
    batch: int
    frames: int
    n_q: int
    peer_seconds: list[float]
    our_seconds: list[float]
    agreement: str

    def cells(self) -> dict[str, str]:
        """A row: both rates, their ratio and its range."""
        macs = self.batch * self.frames * self.n_q * ENTRIES * DIMENSION
        rates = [macs / statistics.median(s) / 1e9 for s in (self.peer_seconds, self.our_seconds)]
        shown = [f"{r:.1f}" if self.direction == "encode" else "" for r in rates]
        return {
            "direction": self.direction,
            "latents": f"[{self.batch}, {DIMENSION}, {self.frames}]",
            "n_q": str(self.n_q),
            "encodec, ms": f"{1e3 * statistics.median(self.peer_seconds):.2f}",
            "ours, ms": f"{1e3 * statistics.median(self.our_seconds):.2f}",
            "encodec, GMAC/s": shown[0],
            "ours, GMAC/s": shown[1],
            **ratio_cells(self.peer_seconds, self.our_seconds),
            "agreement": self.agreement,
        }


def random_latents(rows: int, seed: int) -> torch.Tensor:
    """Correlated normal latents float32 [rows, DIMENSION]."""
    mixing = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(DIMENSION, DIMENSION, generator=mixing))[0]
    spectrum = torch.arange(1, DIMENSION + 1).pow(-0.5)
    normal = torch.randn(rows, DIMENSION, generator=torch.Generator().manual_seed(seed))
    return normal * spectrum @ basis


def fitted_codebooks(n_q: int) -> torch.Tensor:
    """Codebooks float32 [n_q, ENTRIES, DIMENSION], each by two k-means steps on the residuals."""
    residual = random_latents(FIT_ROWS, seed=1)
    books = []
    for _ in range(n_q):
        entries = residual[torch.randperm(FIT_ROWS)[:ENTRIES]]
        for _ in range(2):
            nearest = torch.cdist(residual, entries).argmin(dim=1)
            sums = torch.zeros_like(entries).index_add_(0, nearest, residual)
            counts = torch.bincount(nearest, minlength=ENTRIES)[:, None]
            entries = torch.where(counts > 0, sums / counts.clamp(min=1), entries)
        residual = residual - entries[torch.cdist(residual, entries).argmin(dim=1)]
        books.append(entries)
    return torch.stack(books)


def reference_quantiser(books: torch.Tensor) -> torch.nn.Module:
    """The reference's residual quantiser with these codebooks."""
    import_encodec()
    from encodec.quantization import ResidualVectorQuantizer

    quantiser = ResidualVectorQuantizer(dimension=DIMENSION, n_q=len(books), bins=ENTRIES)
    for layer, entries in zip(quantiser.vq.layers, books, strict=True):
        layer.codebook.copy_(entries)
    return quantiser.vq.eval()


@torch.inference_mode()
def measure(
    books: torch.Tensor, batch: int, frames: int, n_q: int, repetitions: int
) -> list[Quantisation]:
    """Time both directions on one shape."""
    theirs, ours = reference_quantiser(books), _native.Codebooks(books.numpy())
    rows = random_latents(batch * frames, seed=2)
    latents = rows.view(batch, frames, DIMENSION).transpose(1, 2).contiguous()
    times: list[tuple[float, ...]] = []
    for repetition in range(repetitions + 1):
        there = timed(theirs.encode, latents, n_q)
        here = timed(ours.encode, rows.numpy(), n_q)
        there_back, here_back = timed(theirs.decode, there[1]), timed(ours.decode, here[1])
        if repetition:  # the first one warms up
            times.append((there[0], here[0], there_back[0], here_back[0]))
    equal = np.mean(there[1].reshape(n_q, -1).numpy() == here[1])
    again = theirs.decode(torch.from_numpy(here[1].astype(np.int64)).view(n_q, batch, frames))
    apart = np.abs(again.transpose(1, 2).reshape(-1, DIMENSION).numpy() - here_back[1]).max()
    columns = [list(column) for column in zip(*times, strict=True)]
    shape = (batch, frames, n_q)
    return [
        Quantisation("encode", *shape, *columns[:2], f"{equal:.3%} of codes equal"),
        Quantisation("decode", *shape, *columns[2:], f"at most {apart:.1e} apart"),
    ]


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--n-q", type=int, nargs="+", default=[8, 32], help="codebooks used")
    arguments.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    arguments.add_argument("--frames", type=int, default=750, help="latents of each of a batch")
    arguments.add_argument("--repetitions", type=int, default=7)
    args = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    facts = machine("torch", "encodec")
    books = fitted_codebooks(max(args.n_q))
    results: list[Quantisation] = []
    for batch in args.batches:
        for n_q in args.n_q:
            results += measure(books, batch, args.frames, n_q, args.repetitions)
    title = f"bench_rvq: one thread, {args.repetitions} repetitions"
    publish(args.json, facts, {title: results})


if __name__ == "__main__":
    main()
