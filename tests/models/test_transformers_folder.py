"""Folders that transformers wrote, under both namings of weight normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

# Behind the skip, because what follows imports torch and the peers.
from encodec_fast.models.checkpoints import load_checkpoint  # noqa: E402

SMALL = {"num_filters": 4, "hidden_size": 8, "codebook_size": 16, "num_lstm_layers": 1}
STEREO = {
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 0.25,
    "overlap": 0.1,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
    "target_bandwidths": [3.0, 6.0],
}


def build(**settings: Any) -> Any:
    """A transformers model with random weights and random codebooks."""
    torch.manual_seed(11)
    model = transformers.EncodecModel(transformers.EncodecConfig(**SMALL, **settings)).eval()
    for layer in model.quantizer.layers:
        layer.codebook.embed.normal_(std=0.1)
    return model


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The key names before PyTorch's parametrised weight norm."""
    return {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in state.items()
    }


@pytest.mark.parametrize("layout", ["safetensors", "old safetensors", "old bin"])
def test_both_key_styles(layout: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    hf = build()
    hf.save_pretrained(tmp_path)
    if layout != "safetensors":
        (tmp_path / "model.safetensors").unlink()
    if layout == "old safetensors":
        save_file(old_names(hf.state_dict()), tmp_path / "model.safetensors")
    if layout == "old bin":
        torch.save(old_names(hf.state_dict()), tmp_path / "pytorch_model.bin")
    assert_same(hf, tmp_path, torch.randn(2, 1, 2001))


@pytest.mark.parametrize(
    "settings",
    [
        {"pad_mode": "constant"},
        {"use_conv_shortcut": False, "num_residual_layers": 2},
        {"upsampling_ratios": [5, 4], "use_causal_conv": False},
        {"target_bandwidths": [1.5, 3.0], "codebook_size": 32},
    ],
)
def test_other_settings(settings: dict[str, Any], tmp_path: Path) -> None:
    hf = build(**{key: value for key, value in settings.items() if key not in SMALL})
    hf.save_pretrained(tmp_path)
    assert_same(hf, tmp_path, torch.randn(1, 1, 1001))


def assert_same(hf: Any, folder: Path, x: torch.Tensor) -> None:
    model = load_checkpoint(folder)
    bandwidth = model.config.bandwidths[-1]
    with torch.no_grad():
        ((codes, _),) = model.encode(x, bandwidth)
        expected = hf.encode(x, bandwidth=bandwidth)
        assert torch.equal(codes, expected.audio_codes[0])
        audio = hf.decode(expected.audio_codes, expected.audio_scales)[0]
        torch.testing.assert_close(model.decode([(codes, None)]), audio, rtol=0, atol=1e-5)


def test_segments_and_scales(tmp_path: Path) -> None:
    hf = build(**STEREO)
    hf.save_pretrained(tmp_path)
    model = load_checkpoint(tmp_path / "model.safetensors")
    x = 0.1 * torch.randn(1, 2, 13500)
    with torch.no_grad():
        frames = model.encode(x, 6.0)
        expected = hf.encode(x, bandwidth=6.0)
        assert len(frames) == len(expected.audio_codes) == 3
        for (codes, scale), other, other_scale in zip(
            frames, expected.audio_codes, expected.audio_scales, strict=True
        ):
            assert scale is not None and torch.equal(scale, other_scale)
            assert torch.equal(codes, other[..., : codes.shape[-1]])
        audio = hf.decode(
            expected.audio_codes,
            expected.audio_scales,
            last_frame_pad_length=expected.last_frame_pad_length,
        )[0]
        torch.testing.assert_close(model.decode(frames), audio, rtol=0, atol=1e-5)


def test_the_codec_of_musicgen(tmp_path: Path) -> None:
    """All of its settings but the sizes."""
    small = {"num_filters": 4, "hidden_size": 16, "num_lstm_layers": 2}
    settings: dict[str, Any] = {
        "target_bandwidths": [2.2],
        "sampling_rate": 32000,
        "codebook_size": 2048,
        "upsampling_ratios": [8, 5, 4, 4],
        "use_causal_conv": False,
        "use_conv_shortcut": False,
    }
    torch.manual_seed(12)
    hf = transformers.EncodecModel(transformers.EncodecConfig(**small, **settings)).eval()
    for layer in hf.quantizer.layers:
        layer.codebook.embed.normal_(std=0.1)
    assert len(hf.quantizer.layers) == 4
    hf.save_pretrained(tmp_path)
    for length in (1, 639, 640, 641, 20001):
        assert_same(hf, tmp_path, 0.3 * torch.randn(1, 1, length))
    assert load_checkpoint(tmp_path).config.n_q(2.2) == 4
