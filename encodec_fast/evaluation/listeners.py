"""Models of human listeners: PESQ and STOI for speech, and ViSQOL through its program.

Each gives None where it cannot judge a recording (no speech in it, too short).
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from encodec_fast._native import Audio

Array = NDArray[np.float32]

SPEECH_RATE = 16_000
VISQOL_RATE = 48_000
_VISQOL_SECONDS = 600.0  # for one recording
_VISQOL_PEAK = 0.99
_MOS = re.compile(r"MOS-LQO:\s*([0-9]+(?:\.[0-9]+)?)")


def installed(package: str) -> bool:
    """Whether an optional package is there."""
    return importlib.util.find_spec(package) is not None


def pesq_mos(x: Audio, y: Audio, sample_rate: int) -> float | None:
    """PESQ (wideband, ITU-T P.862.2) of y against x, float32 [channels, samples] at `sample_rate`.

    At 16 kHz, channel by channel, the mean over those with speech; 1.04 to 4.64, higher is better.
    Needs the package pesq.
    """
    from pesq import PesqError, pesq

    def judge(a: Array, b: Array) -> float | None:
        try:
            return float(pesq(SPEECH_RATE, a, b, "wb"))
        except (PesqError, ValueError):  # ValueError: not one sample
            return None

    return _mean_over_channels(judge, x, y, sample_rate)


def stoi_score(x: Audio, y: Audio, sample_rate: int) -> float | None:
    """STOI (Taal et al. 2011) of y against x, as pesq_mos; up to 1, higher is better.

    Needs the package pystoi.
    """
    from pystoi import stoi

    def judge(a: Array, b: Array) -> float | None:
        with warnings.catch_warnings():
            # It warns, and returns 1e-5, where less than 0.4 s are not silent.
            warnings.simplefilter("error", RuntimeWarning)
            try:
                score = float(stoi(a, b, SPEECH_RATE))
            except (RuntimeWarning, ValueError, IndexError):
                return None
        return score if np.isfinite(score) else None

    return _mean_over_channels(judge, x, y, sample_rate)


def _mean_over_channels(
    judge: Callable[[Array, Array], float | None], x: Audio, y: Audio, sample_rate: int
) -> float | None:
    pair = [soxr.resample(wave.T, sample_rate, SPEECH_RATE).T for wave in (x, y)]
    scores = [
        judge(np.ascontiguousarray(a), np.ascontiguousarray(b))
        for a, b in zip(*pair, strict=True)
        if np.any(a)
    ]
    found = [score for score in scores if score is not None]
    return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class Visqol:
    """The external program ViSQOL in audio mode: its path, and the file of its quality model (None:
    the program's own)."""

    program: Path
    model: Path | None = None

    @staticmethod
    def at(program: str | os.PathLike[str], model: str | os.PathLike[str] | None) -> Visqol:
        """What lies at these paths. Raises FileNotFoundError where there is no such file."""
        for name, path in (("visqol", program), ("visqol model", model)):
            if path is not None and not Path(path).is_file():
                raise FileNotFoundError(f"{name}: no file at {os.fspath(path)}")
        return Visqol(Path(program).absolute(), None if model is None else Path(model).absolute())

    def mos(self, x: Audio, y: Audio, sample_rate: int) -> float | None:
        """MOS-LQO of y against x, float32 [channels, samples]; 1 to about 4.75, higher is better.

        As audiocraft does: mixed to mono, at 48 kHz, limited to 0.99, 16 bits. None where the
        program finds no value. Raises OSError where it cannot be run.
        """
        with tempfile.TemporaryDirectory() as folder:
            command = [str(self.program)]
            for name, wave in (("reference", x), ("degraded", y)):
                path = Path(folder) / f"{name}.wav"
                mono = soxr.resample(wave.mean(axis=0), sample_rate, VISQOL_RATE)
                limited = np.clip(mono, -_VISQOL_PEAK, _VISQOL_PEAK)
                soundfile.write(path, limited, VISQOL_RATE, subtype="PCM_16")
                command += [f"--{name}_file", str(path)]
            if self.model is not None:
                command += ["--similarity_to_quality_model", str(self.model)]
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=_VISQOL_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return None
        found = _MOS.search(done.stdout)
        return float(found[1]) if done.returncode == 0 and found else None
