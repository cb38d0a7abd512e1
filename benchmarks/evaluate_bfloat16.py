"""What do bfloat16 weights change?

    python benchmarks/evaluate_bfloat16.py --audio DIR [--model nano_24khz] [--files 3]
        [--seconds 5] [--json]

The peer is the same program with its matrices as they are. `--audio` is a folder with a
MANIFEST.csv (columns path, split, kind); of the test split are taken the first `--files` of each
kind, the first `--seconds` of each. Per bandwidth: the share of equal codes, the decoders' SNR for
the same codes (those of the exact program), and the SI-SNR of both programs' round trips against
the recordings, the mean over files.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from report import machine, parser, publish
from safetensors import safe_open
from safetensors.torch import save_file

import encodec_fast as ef
from encodec_fast import store
from encodec_fast._native import Audio
from encodec_fast.evaluation.metrics import si_snr
from encodec_fast.evaluation.recordings import Setting, find_recordings, read_recording
from encodec_fast.program import METADATA_KEY


@dataclass(frozen=True)
class Change:
    """What the rounded weights change at one bandwidth."""

    kbps: float
    equal_codes: float
    equal_codes_first: float
    decoder_snr_db: float
    si_snr_exact_db: float
    si_snr_bfloat16_db: float

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        return {
            "kbps": f"{self.kbps:g}",
            "equal codes": f"{self.equal_codes:.2%}",
            "equal codes, codebook 0": f"{self.equal_codes_first:.2%}",
            "decoder, SNR dB": f"{self.decoder_snr_db:.1f}",
            "SI-SNR dB, exact": f"{self.si_snr_exact_db:.3f}",
            "SI-SNR dB, bfloat16": f"{self.si_snr_bfloat16_db:.3f}",
        }


def round_matrices(source: Path, target: Path) -> None:
    """Copy a program file, its operations' matrices rounded to bfloat16 (to nearest, ties even)."""
    with safe_open(source, framework="pt") as file:
        metadata = file.metadata()
        # An open file has keys() but cannot be iterated.
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata[METADATA_KEY])
    for op in header["encoder"] + header["decoder"]:
        for key in {"weight", "recurrent"} & op.keys():
            tensors[op[key]] = tensors[op[key]].to(torch.bfloat16)
    save_file(tensors, target, metadata=metadata)


def compare(exact: ef.Codec, half: ef.Codec, waves: list[Audio], kbps: float) -> Change:
    """Run both programs on all recordings at one bandwidth."""
    equal, ratios = [], []
    signal = noise = 0.0
    for wave in waves:
        codes = exact.encode(wave, kbps), half.encode(wave, kbps)
        joined = [np.concatenate(one.codes, axis=1) for one in codes]
        equal.append(joined[0] == joined[1])
        heard = exact.decode(codes[0])
        signal += float(np.square(heard, dtype=np.float64).sum())
        difference = half.decode(codes[0]).astype(np.float64) - heard
        noise += float(np.square(difference).sum())
        outputs = heard, half.decode(codes[1])
        ratios.append([si_snr(wave, output, exact.sample_rate) for output in outputs])
    same = np.concatenate(equal, axis=1)
    snr = 10 * float(np.log10(signal / noise))
    quality = np.mean(ratios, axis=0)
    return Change(kbps, same.mean(), same[0].mean(), snr, quality[0], quality[1])


def main() -> None:
    """Parse the arguments, measure, print."""
    arguments = parser(__doc__)
    arguments.add_argument("--audio", type=Path, required=True)
    arguments.add_argument("--model", default="nano_24khz", help="a name or a program file")
    arguments.add_argument("--files", type=int, default=3, help="recordings of each kind")
    arguments.add_argument("--seconds", type=float, default=5.0, help="of each recording")
    args = arguments.parse_args()
    torch.set_num_threads(1)
    facts = machine("torch")
    source = store.find_program(args.model)
    exact = ef.Codec.load(source)
    with tempfile.TemporaryDirectory() as folder:
        rounded = Path(folder) / "rounded.safetensors"
        round_matrices(source, rounded)
        half = ef.Codec.load(rounded)
    setting = Setting(exact.sample_rate, exact.channels)
    waves = [
        read_recording(recording.path, setting, args.seconds)
        for recording in find_recordings(args.audio, limit=args.files)
    ]
    total = sum(wave.shape[1] for wave in waves) / exact.sample_rate
    title = f"evaluate_bfloat16: {exact.name}, {len(waves)} recordings, {total:.0f} s"
    changes = [compare(exact, half, waves, kbps) for kbps in exact.bandwidths]
    publish(args.json, facts, {title: changes})


if __name__ == "__main__":
    main()
