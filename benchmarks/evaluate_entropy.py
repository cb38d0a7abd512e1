"""What does entropy coding save? Bits per code on the test recordings: packed, static and lm.

    python benchmarks/evaluate_entropy.py --audio DIR --checkpoint lm.pt [--model nano_24khz]

`--audio` is a folder with a MANIFEST.csv (columns path, split, kind); `--checkpoint` is what
`encodec_fast.training.lm_trainer` wrote. The language model has its weights as they are shipped and
starts anew every 10 s, as at key chunks. A code costs log2(2^24 / width) of its interval: framing
is not in it. Perplexities say how evenly a codebook is used: one that collapsed would be cheap,
too, but no saving.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from evaluate_models import read, recordings
from numpy.typing import NDArray

import encodec_fast
from encodec_fast.training.code_length import as_shipped, model_bits
from encodec_fast.training.lm_trainer import load_trained
from encodec_fast.training.static_tables import count_codes, perplexity, width_bits

Codes = NDArray[np.uint16]


def main() -> None:
    """Print a Markdown table row per bandwidth and kind of sound, then the perplexities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--model", default="nano_24khz")
    parser.add_argument("--limit", type=int, default=0, help="files per kind (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    codec = encodec_fast.Codec.load(options.model)
    model, widths = load_trained(options.checkpoint)
    model.load_state_dict(as_shipped(model.state_dict()))
    by_kind: dict[str, list[Codes]] = {"all": []}
    for path, kind in recordings(options.audio, options.limit):
        wave = read(path, codec.sample_rate, codec.channels)
        codes = codec.encode(wave, bandwidth=None).codes[0]
        by_kind["all"].append(codes)
        by_kind.setdefault(kind, []).append(codes)
    prices = width_bits(widths)
    print("| kbps | kind | minutes | packed | static | saved | lm | saved |")
    print("|---|---|---|---|---|---|---|---|")
    counts = {
        kind: sum(count_codes(codes, codec.codebook_size) for codes in files)
        for kind, files in by_kind.items()
    }
    for bandwidth in codec.bandwidths:
        n_q = codec.n_q(bandwidth)
        for kind, files in by_kind.items():
            frames = sum(codes.shape[1] for codes in files)
            packed = codec.codebook_bits
            static = (counts[kind] * prices)[:n_q].sum() / (n_q * frames)
            lm = model_bits(model, files, n_q).sum() / (n_q * frames)
            minutes = frames * codec.hop / codec.sample_rate / 60
            print(
                f"| {bandwidth:g} | {kind} | {minutes:.1f} | {packed} | {static:.2f} | "
                f"{1 - static / packed:.1%} | {lm:.2f} | {1 - lm / packed:.1%} |"
            )
    found = perplexity(counts["all"])
    print(f"\nperplexity of the codebooks: {' '.join(f'{value:.0f}' for value in found)}")
    print(f"the first {found[0]:.0f}, the mean {found.mean():.0f}, the worst {found.min():.0f}")
    per_book = model_bits(model, by_kind["all"], codec.n_codebooks) / counts["all"][0].sum()
    print(f"bits per code with lm, all codebooks: {' '.join(f'{b:.2f}' for b in per_book)}")


if __name__ == "__main__":
    main()
