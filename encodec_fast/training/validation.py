"""How good the averaged weights are on recordings that training never sees."""

from __future__ import annotations

import torch

from encodec_fast.models.config import ModelConfig
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.training.codec_settings import CodecSettings
from encodec_fast.training.data import validation_clips
from encodec_fast.training.losses import mel_loss, noise_ratio
from encodec_fast.training.monitor import Monitor


class Validation:
    """Codes fixed crops of the held-out recordings; the figures decide which checkpoint is best."""

    def __init__(self, settings: CodecSettings, config: ModelConfig) -> None:
        chosen = settings.validation
        self._settings = chosen
        self._mel = mel_loss("audiocraft", config.sample_rate)
        self._bandwidth = chosen.bandwidth or config.bandwidths[len(config.bandwidths) // 2]
        frames = round(chosen.seconds * config.frame_rate)
        self._clips = (
            validation_clips(
                settings.placed_data,
                config.sample_rate,
                config.channels,
                frames * config.hop,
                chosen.clips,
            )
            if chosen.steps
            else []
        )
        self._shown = False  # the originals

    @torch.no_grad()
    def run(self, model: EncodecModel, monitor: Monitor, step: int) -> dict[str, float]:
        """Mean mel distance and noise-to-signal ratio in dB, over kinds and for each, by name.

        Both are lower for better models. Shows examples in the monitor: the original once.
        """
        found: dict[str, list[tuple[float, float]]] = {}
        device = next(model.parameters()).device
        for number, (kind, source, wave) in enumerate(self._clips):
            x = torch.from_numpy(wave)[None]
            y = model(x.to(device), self._bandwidth).cpu()
            found.setdefault(kind, []).append((float(self._mel(x, y)), float(noise_ratio(x, y))))
            if number < self._settings.examples:
                name = f"{kind}/{source}"
                monitor.audio(step, f"{name}/decoded", y[0])
                monitor.spectrogram(step, f"{name}/decoded", y[0])
                if not self._shown:
                    monitor.audio(step, f"{name}/original", x[0])
                    monitor.spectrogram(step, f"{name}/original", x[0])
        self._shown = True
        means = {
            kind: torch.tensor(values, dtype=torch.float64).mean(dim=0).tolist()
            for kind, values in found.items()
        }
        figures = {
            f"valid/{measure}/{kind}": values[place]
            for kind, values in means.items()
            for place, measure in enumerate(("mel", "snr"))
        }
        for place, measure in enumerate(("mel", "snr")):
            figures[f"valid/{measure}"] = sum(v[place] for v in means.values()) / len(means)
        monitor.scalars(step, figures)
        return figures
