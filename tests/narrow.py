"""Narrow models: the layers of the real configurations with an eighth of the channels or so.

Their weights are random but conditioned like the reference peers', so that their codes vary. They
code a minute of audio in seconds and need no reference package.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from peers import condition
from signals import program_material

from encodec_fast.models.config import CONFIGS, ModelConfig
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.export import export_model

# The layers of AudioGen's model, which looks ahead, with bandwidths that the others have too.
AHEAD = ModelConfig(
    name="ahead_16khz",
    sample_rate=16000,
    channels=1,
    bandwidths=(1.5, 3.0, 6.0, 12.0),
    causal=False,
    norm="weight_norm",
    normalize=False,
    true_skip=True,
)
NAMES = ("encodec_24khz", "encodec_48khz", "stereo_48khz", "nano_24khz", AHEAD.name)
MIN_DISTINCT_CODES = 60


def narrow_model(name: str) -> EncodecModel:
    """The model called `name` with 4 to 64 channels, 32-dimensional latents, 128 entries."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        known = {**CONFIGS, AHEAD.name: AHEAD}
        config = replace(known[name], n_filters=4, dimension=32, codebook_size=128)
        model = EncodecModel(config).eval()
        wav = program_material("train", config.sample_rate, config.channels, 9.0)
        condition(model, torch.from_numpy(wav), config.sample_rate, config.normalize)
    return model


def narrow_program(name: str, folder: Path) -> Path:
    """Export the narrow model, and refuse one whose codes hardly vary."""
    model = narrow_model(name)
    config = model.config
    wav = program_material("test", config.sample_rate, config.channels, 9.0)
    with torch.inference_mode():
        frames = model.encode(torch.from_numpy(wav)[None], config.bandwidths[-1])
    first = torch.cat([codes[0, 0] for codes, _ in frames])
    assert len(first.unique()) >= MIN_DISTINCT_CODES, "the narrow model's codes hardly vary"
    path = folder / f"{name}.safetensors"
    export_model(model, path)
    return path
