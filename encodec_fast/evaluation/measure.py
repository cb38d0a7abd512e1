"""One recording through all models and anchors: what a worker does."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encodec_fast._native import Audio
from encodec_fast.chunk_codes import make_header
from encodec_fast.codes import Codes
from encodec_fast.evaluation import metrics
from encodec_fast.evaluation.anchors import LOWPASS_HZ, OPUS_KBPS, OpusCoder, lowpass
from encodec_fast.evaluation.listeners import Visqol, pesq_mos, stoi_score
from encodec_fast.evaluation.metrics import Spectra
from encodec_fast.evaluation.models import EvaluatedModel
from encodec_fast.evaluation.recordings import Recording, Setting, read_recording
from encodec_fast.evaluation.report import QUALITIES, SPEECH, Figure, System
from encodec_fast.payloads import CodeRun, PayloadCoder, payload_coder
from encodec_fast.training.static_tables import count_codes

EXCERPT_SECONDS = 4.0
_SCALE_BITS = 32  # of a segment's level, in models that normalise


@dataclass(frozen=True)
class Work:
    """What is done with every recording. `pesq`, `stoi`: for speech; `seconds`: of it at most."""

    models: tuple[EvaluatedModel, ...]
    opus: OpusCoder | None
    pesq: bool
    stoi: bool
    visqol: Visqol | None
    seconds: float

    def settings(self) -> list[Setting]:
        """The models' settings, each once."""
        return list(dict.fromkeys(model.setting for model in self.models))

    def measures(self) -> tuple[str, ...]:
        """Those of report.QUALITIES that are tried."""
        left_out = {"pesq": not self.pesq, "stoi": not self.stoi, "visqol": self.visqol is None}
        return tuple(name for name in QUALITIES if not left_out.get(name, False))

    def systems(self) -> list[System]:
        """All models per bandwidth, and per setting its anchors."""
        found = []
        for setting in self.settings():
            for model in self.models:
                if model.setting == setting:
                    found += [System.of_model(model.label, setting, b) for b in model.bandwidths]
            if self.opus is not None and setting.channels <= 2:
                found += [System.of_opus(setting, kbps) for kbps in OPUS_KBPS]
            found += [
                System.of_lowpass(setting, hertz)
                for hertz in LOWPASS_HZ
                if 2.5 * hertz < setting.sample_rate
            ]
        return found


class Excerpt(NamedTuple):
    """The middle of a recording as a system decodes it, float32 [channels, samples], at most
    EXCERPT_SECONDS; `system` is its label, or empty for the original."""

    system: str
    setting: Setting
    wave: Audio


@dataclass
class Measured:
    """Everything about one recording. counts: uses int64 [codebooks, entries] per model; excerpts:
    where asked for; skipped: why there are no figures, or empty."""

    figures: list[Figure] = field(default_factory=list)
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    excerpts: list[Excerpt] = field(default_factory=list)
    skipped: str = ""


class Measurer:
    """Measures recordings one by one; keeps the loaded models."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._codecs = {model.label: model.load() for model in work.models}
        self._coders: dict[tuple[str, int, str], PayloadCoder] = {}

    def measure(self, recording: Recording, excerpts: bool = False) -> Measured:
        """All figures of a recording, or why it is skipped; `excerpts`: to listen to, too."""
        try:
            originals = {
                setting: read_recording(recording.path, setting, self._work.seconds)
                for setting in self._work.settings()
            }
        except (ValueError, OSError) as error:
            told = getattr(error, "strerror", None) or str(error)  # the report has the name
            return Measured(skipped=told.removeprefix(f"{recording.path}: "))
        measured = Measured()
        for setting, original in originals.items():
            spectra = Spectra(original, setting.sample_rate)
            if excerpts:
                measured.excerpts.append(_excerpt("", setting, original))
            for system in self._work.systems():
                if system.setting != setting:
                    continue
                decoded, costs = self._run(system, original, measured)
                if excerpts:
                    measured.excerpts.append(_excerpt(system.label, setting, decoded))
                figure = Figure(
                    system=system.label,
                    path=recording.name,
                    kind=recording.kind,
                    seconds=original.shape[1] / setting.sample_rate,
                    **costs,
                    **self._judge(original, spectra, decoded, recording.kind),
                )
                measured.figures.append(figure)
        return measured

    def _run(
        self, system: System, original: Audio, measured: Measured
    ) -> tuple[Audio, dict[str, Any]]:
        """The decoded recording and its costs: kbps and times real time."""
        seconds = original.shape[1] / system.setting.sample_rate
        if system.type == "lowpass":
            return lowpass(original, system.setting.sample_rate, system.target), {}
        if system.type == "opus":
            assert self._work.opus is not None
            decoded, bits = self._work.opus.round_trip(
                original, system.setting.sample_rate, system.target
            )
            return decoded, {"kbps": bits / seconds / 1000}
        codec = self._codecs[system.model]
        # The thread's own time: the speed of one thread whatever else runs on the machine.
        started = time.thread_time()
        codes = codec.encode(original, system.target)
        encoded = time.thread_time()
        decoded = codec.decode(codes)
        ended = time.thread_time()
        self._count(system.model, codes, codec.codebook_size, measured)
        costs: dict[str, Any] = {
            "encode_speed": seconds / max(encoded - started, 1e-9),
            "decode_speed": seconds / max(ended - encoded, 1e-9),
            "kbps": self._bits(system.model, codes, "none") / seconds / 1000,
        }
        entropy = codec.entropy_model
        if entropy is not None and codec.n_q(system.target) <= entropy.n_codebooks:
            if entropy.tables is not None:
                costs["kbps_static"] = self._bits(system.model, codes, "static") / seconds / 1000
            if entropy.lm is not None:
                costs["kbps_lm"] = self._bits(system.model, codes, "lm") / seconds / 1000
        return decoded, costs

    def _bits(self, label: str, codes: Codes, entropy: str) -> int:
        """Bits of the payloads of an .ecdc file, in chunks as files have them."""
        codec = self._codecs[label]
        n_q = codes.codes[0].shape[0]
        bits = _SCALE_BITS * len(codes.scales or ())
        if entropy == "none":
            return bits + codec.codebook_bits * sum(int(segment.size) for segment in codes.codes)
        model = codec.entropy_model
        key = label, n_q, entropy
        if key not in self._coders:
            self._coders[key] = payload_coder(codec.program, entropy, model, n_q, 1)
        step = make_header(codec.program, n_q, entropy, model).chunk_frames
        for segment in codes.codes:
            for first in range(0, segment.shape[1], step):
                chunk = np.ascontiguousarray(segment[:, first : first + step])
                ((payload,),) = self._coders[key].encode([CodeRun(True, [chunk])])
                bits += 8 * len(payload)
        return bits

    @staticmethod
    def _count(label: str, codes: Codes, entries: int, measured: Measured) -> None:
        """Uses of each entry; codes of a lower bandwidth are the first of those of a higher one, so
        the highest counts all."""
        joined = np.concatenate(codes.codes, axis=1)
        if label not in measured.counts or len(measured.counts[label]) < len(joined):
            measured.counts[label] = count_codes(joined, entries)

    def _judge(self, x: Audio, spectra: Spectra, y: Audio, kind: str) -> dict[str, Any]:
        """What y is like, compared with x, whose spectra are at hand."""
        sample_rate = spectra.sample_rate
        decoded = Spectra(y, sample_rate)
        distance = metrics.stft_distance(spectra, decoded)
        found: dict[str, Any] = {
            "si_snr": metrics.si_snr(x, y, sample_rate),
            "mel": metrics.log_mel_distance(spectra, decoded),
            "stft_convergence": distance.convergence,
            "stft_log_magnitude": distance.log_magnitude,
        }
        if kind == SPEECH and self._work.pesq:
            found["pesq"] = pesq_mos(x, y, sample_rate)
        if kind == SPEECH and self._work.stoi:
            found["stoi"] = stoi_score(x, y, sample_rate)
        if self._work.visqol is not None:
            found["visqol"] = self._work.visqol.mos(x, y, sample_rate)
        return found


def _excerpt(system: str, setting: Setting, wave: Audio) -> Excerpt:
    length = min(round(EXCERPT_SECONDS * setting.sample_rate), wave.shape[1])
    start = (wave.shape[1] - length) // 2
    return Excerpt(system, setting, wave[:, start : start + length].copy())
