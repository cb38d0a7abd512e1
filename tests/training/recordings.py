"""A small corpus in the layout that the trainer reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from encodec_fast.training.data_settings import MixingStrategy

# s1 to s4 of the paper (4.1, A.1), with its datasets by kind.
PAPER_MIXING = (
    MixingStrategy(0.32, 1, ("music",)),
    MixingStrategy(0.32, 1, ("speech", "sound")),
    MixingStrategy(0.24, 2),
    MixingStrategy(0.12, 3, ("speech", "sound")),
)
HEADER = "path,split,kind,licence\n"
ROWS = (
    ("a.flac", "train", "speech", "CC0-1.0"),
    ("b.flac", "train", "music", "CC-BY-4.0"),
    ("c.flac", "train", "sound", "MIT (repo)"),
    ("shared.flac", "train", "music", "CC-BY-SA-3.0"),
    ("gpl.flac", "train", "music", "GPL-2.0-or-later"),
    ("held_out.flac", "test", "speech", "CC0-1.0"),
)


def write_corpus(folder: Path, seconds: float = 2.0, sample_rate: int = 16000) -> None:
    """Write two-channel noise recordings and their MANIFEST.csv into `folder`."""
    random = np.random.default_rng(1)
    lines = [HEADER]
    for name, *columns in ROWS:
        shape = (int(seconds * sample_rate), 2)
        soundfile.write(folder / name, random.uniform(-0.5, 0.5, shape), sample_rate)
        lines.append(",".join([name, *columns]) + "\n")
    (folder / "MANIFEST.csv").write_text("".join(lines))
