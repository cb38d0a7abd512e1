"""A program's weights come back as the model that it was exported from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from encodec_fast.models.config import CONFIGS, ModelConfig
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.export import export_model
from encodec_fast.models.program_weights import load_program
from encodec_fast.store import find_program


def small(name: str) -> ModelConfig:
    return replace(CONFIGS[name], n_filters=2, dimension=8, codebook_size=16)


@pytest.mark.parametrize("name", ["encodec_24khz", "encodec_48khz", "nano_24khz", "stereo_48khz"])
def test_codes_and_waveforms_stay(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = small(name)
    model = EncodecModel(config).eval()
    for parameter in model.parameters():  # biases and norms, too, away from what they start as
        parameter.data += 0.1 * torch.randn_like(parameter)
    path = tmp_path / "model.safetensors"
    export_model(model, path)
    loaded = load_program(path, config)
    assert loaded.config == config
    x = 0.1 * torch.randn(1, config.channels, 5 * config.hop + 7)
    with torch.inference_mode():
        (ours, _), *_ = loaded.encode(x)
        (theirs, _), *_ = model.encode(x)
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_bundled_model_can_be_trained_further() -> None:
    model = load_program(find_program("nano_24khz"))
    assert model.config == CONFIGS["nano_24khz"]
    codebook = model.quantizer.codebook(3)
    assert codebook.inited.item() == 1
    torch.testing.assert_close(codebook.embed_avg, codebook.embed * codebook.cluster_size[:, None])


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such program"):
        load_program(tmp_path / "missing.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 100)
    with pytest.raises(ValueError, match=r"junk\.safetensors: not a program"):
        load_program(tmp_path / "junk.safetensors")
    with pytest.raises(ValueError, match="not a program of a known model"):
        load_program(find_program("nano_24khz"), CONFIGS["encodec_24khz"])
    with pytest.raises(ValueError, match="not a program of a known model"):
        load_program(find_program("nano_24khz"), replace(CONFIGS["nano_24khz"], dimension=32))
