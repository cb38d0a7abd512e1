"""How good is a model? SI-SNR, mel distance and codes in use on the test recordings, per kind.

    python benchmarks/evaluate_models.py --audio DIR [--model nano_24khz | --torch CHECKPOINT]

`--audio` is a folder with a MANIFEST.csv (columns path, split, kind). The figures: SI-SNR in dB in
5 s frames with half overlap (higher is better), the multi-scale mel loss of training (lower is
better), both the mean over files, and per codebook the number of distinct codes over the split.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from encodec_fast.training.losses import MelLoss
from encodec_fast.training.metrics import si_snr

Wave = NDArray[np.float32]
# Codes one recording [channels, samples] at a bandwidth: (codes [n_q, frames], decoded waveform).
RoundTrip = Callable[[Wave, float], tuple[NDArray[np.int64], Wave]]


def torch_round_trip(checkpoint: str) -> tuple[RoundTrip, int, int, tuple[float, ...]]:
    """The PyTorch model of a checkpoint: its round trip, rate, channels and bandwidths."""
    from encodec_fast.models.checkpoints import load_checkpoint

    model = load_checkpoint(checkpoint)
    config = model.config

    @torch.no_grad()
    def run(wave: Wave, bandwidth: float) -> tuple[NDArray[np.int64], Wave]:
        frames = model.encode(torch.from_numpy(wave)[None], bandwidth)
        decoded = model.decode(frames)[0, :, : wave.shape[-1]]
        codes = torch.cat([codes[0] for codes, _ in frames], dim=-1)
        return codes.numpy(), decoded.numpy()

    return run, config.sample_rate, config.channels, config.bandwidths


def engine_round_trip(name: str) -> tuple[RoundTrip, int, int, tuple[float, ...]]:
    """The native engine's model: its round trip, rate, channels and bandwidths."""
    import encodec_fast

    codec = encodec_fast.Codec.load(name)

    def run(wave: Wave, bandwidth: float) -> tuple[NDArray[np.int64], Wave]:
        codes = codec.encode(wave, bandwidth=bandwidth)
        joined = np.concatenate(codes.codes, axis=-1).astype(np.int64)
        return joined, codec.decode(codes)

    return run, codec.sample_rate, codec.channels, codec.bandwidths


def recordings(audio: Path, limit: int) -> list[tuple[Path, str]]:
    """The test split's files and kinds, at most `limit` per kind (0: all)."""
    with (audio / "MANIFEST.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "test"]
    chosen: dict[str, list[tuple[Path, str]]] = {}
    for row in sorted(rows, key=lambda row: row["path"]):
        files = chosen.setdefault(row["kind"], [])
        if not limit or len(files) < limit:
            files.append((audio / row["path"], row["kind"]))
    return [entry for files in chosen.values() for entry in files]


def read(path: Path, sample_rate: int, channels: int) -> Wave:
    """A recording as float32 [channels, samples] at the model's rate."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if channels == 1:
        samples = samples.mean(axis=1, keepdims=True)
    elif samples.shape[1] == 1:
        samples = np.repeat(samples, channels, axis=1)
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate)
    return np.ascontiguousarray(samples[:, :channels].T, dtype=np.float32)


def main() -> None:
    """Print one Markdown table row per bandwidth and kind, then the codes in use."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--model", default="nano_24khz")
    parser.add_argument("--torch", help="a PyTorch checkpoint instead of the engine's model")
    parser.add_argument("--bandwidth", type=float, nargs="*", help="kbps (default: all)")
    parser.add_argument("--limit", type=int, default=0, help="files per kind (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    source = torch_round_trip(options.torch) if options.torch else engine_round_trip(options.model)
    round_trip, sample_rate, channels, bandwidths = source
    mel = MelLoss(sample_rate)
    files = [
        (read(path, sample_rate, channels), kind)
        for path, kind in recordings(options.audio, options.limit)
    ]
    print("| kbps | kind | files | SI-SNR dB | mel distance |\n|---|---|---|---|---|")
    usage: dict[float, list[int]] = {}
    for bandwidth in options.bandwidth or bandwidths:
        figures: dict[str, list[tuple[float, float]]] = {}
        codes = []
        for wave, kind in files:
            found, decoded = round_trip(wave, bandwidth)
            codes.append(found)
            pair = torch.from_numpy(wave), torch.from_numpy(decoded)
            distance = float(mel(pair[0][None], pair[1][None]))
            figures.setdefault(kind, []).append((si_snr(*pair, sample_rate), distance))
        usage[bandwidth] = [len(np.unique(row)) for row in np.concatenate(codes, axis=-1)]
        for kind, values in figures.items():
            snr, distance = np.mean(values, axis=0)
            print(f"| {bandwidth:g} | {kind} | {len(values)} | {snr:.2f} | {distance:.4f} |")
    for bandwidth, counts in usage.items():
        print(f"\ncodes in use at {bandwidth:g} kbps: {' '.join(map(str, counts))}")


if __name__ == "__main__":
    main()
