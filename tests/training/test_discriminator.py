"""The MS-STFT discriminator against the published shapes and the reference's convolutions."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encodec_fast.training.discriminator import (
    DISCRIMINATOR_PRESETS,
    DiscriminatorSettings,
    MultiScaleSTFTDiscriminator,
    STFTDiscriminator,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(4)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameter_counts_and_shapes() -> None:
    network = MultiScaleSTFTDiscriminator(DISCRIMINATOR_PRESETS["paper"](24000))
    assert [parameters(scale) for scale in network.scales] == [94_466] * 5
    assert parameters(network) == 472_330
    with torch.no_grad():
        logits, features = network(torch.randn(2, 1, 24000))
    published = {2048: (43, 129), 1024: (90, 65), 512: (184, 33), 256: (372, 17), 128: (747, 9)}
    for n_fft, judged, layers in zip(network.settings.n_ffts, logits, features, strict=True):
        frames, bins = published[n_fft]
        assert judged.shape == (2, 1, frames, bins)
        widths = [n_fft // 2 + 1, n_fft // 4 + 1, n_fft // 8 + 1, bins, bins]
        assert [layer.shape for layer in layers] == [(2, 32, frames, width) for width in widths]


def test_presets() -> None:
    paper, audiocraft, small = (
        {rate: DISCRIMINATOR_PRESETS[name](rate) for rate in (24000, 48000)}
        for name in ("paper", "audiocraft", "small")
    )
    assert paper[24000].n_ffts == (1024, 2048, 512, 256, 128) == audiocraft[48000].n_ffts
    for settings in (paper, small):
        doubled = tuple(2 * size for size in settings[24000].n_ffts)
        assert settings[48000].n_ffts == doubled and settings[48000].separate_channels
    assert (paper[24000].slope, audiocraft[24000].slope) == (0.2, 0.3)
    assert not audiocraft[24000].separate_channels
    assert (small[24000].filters, len(small[24000].n_ffts)) == (8, 3)


class Spectrogram(nn.Module):
    """What torchaudio's transform of this name returns for the arguments that encodec gives it."""

    def __init__(self, n_fft: int, hop_length: int, win_length: int, **others: Any) -> None:
        super().__init__()
        assert others.pop("window_fn") is torch.hann_window
        expected = {"normalized": True, "center": False, "pad_mode": None, "power": None}
        assert others == expected and win_length == n_fft
        self.n_fft, self.hop = n_fft, hop_length

    def forward(self, x: Tensor) -> Tensor:
        window = torch.hann_window(self.n_fft)
        frames = x.unfold(-1, self.n_fft, self.hop) * window
        return torch.fft.rfft(frames).transpose(-1, -2) / window.pow(2).sum().sqrt()


@pytest.mark.parametrize(("preset", "channels"), [("paper", 1), ("audiocraft", 2)])
def test_equals_the_reference(preset: str, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="the peers need the test extra")
    from peers import import_encodec

    import_encodec()
    transforms = types.SimpleNamespace(Spectrogram=Spectrogram)
    monkeypatch.setattr(sys.modules["torchaudio"], "transforms", transforms, raising=False)
    from encodec.msstftd import MultiScaleSTFTDiscriminator as Reference

    settings = DISCRIMINATOR_PRESETS[preset](24000)
    ours = MultiScaleSTFTDiscriminator(settings, channels)
    sizes = list(settings.n_ffts)
    reference = Reference(
        filters=settings.filters,
        in_channels=channels,
        n_ffts=sizes,
        hop_lengths=[size // 4 for size in sizes],
        win_lengths=sizes,
        activation_params={"negative_slope": settings.slope},
    )
    assert parameters(reference) == parameters(ours)
    renamed = {}
    for key, value in reference.state_dict().items():
        key = key.replace("discriminators.", "scales.").replace("convs.", "layers.")
        key = key.replace("conv_post", "post").replace("conv.conv.", "").replace(".conv.", ".")
        key = key.replace("weight_g", "parametrizations.weight.original0")
        renamed[key.replace("weight_v", "parametrizations.weight.original1")] = value
    ours.load_state_dict(renamed)
    x = torch.randn(2, channels, 4096)
    with torch.no_grad():
        logits, features = ours(x)
        expected_logits, expected_features = reference(x)
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features, expected_features, rtol=1e-4, atol=1e-5)


def test_separate_channels_are_judged_as_mono() -> None:
    settings = DISCRIMINATOR_PRESETS["small"](24000)
    stereo = MultiScaleSTFTDiscriminator(settings, 2)
    mono = MultiScaleSTFTDiscriminator(settings, 1)
    mono.load_state_dict(stereo.state_dict())
    x = torch.randn(3, 2, 4096)
    with torch.no_grad():
        together, _ = stereo(x)
        for channel in range(2):
            apart, _ = mono(x[:, channel : channel + 1])
            for found, expected in zip(together, apart, strict=True):
                torch.testing.assert_close(found[channel::2], expected)


def test_autocast_leaves_the_spectrum_in_float32() -> None:
    network = MultiScaleSTFTDiscriminator(DISCRIMINATOR_PRESETS["small"](24000))
    x = torch.randn(2, 1, 4096)
    scale = network.scales[0]
    assert isinstance(scale, STFTDiscriminator)
    with torch.no_grad():
        exact, _ = network(x)
        spectrum = scale.spectrum(x)
        with torch.autocast("cpu", torch.bfloat16):
            logits, _ = network(x)
            assert torch.equal(scale.spectrum(x), spectrum)
    for found, expected in zip(logits, exact, strict=True):
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.02)


def test_bad_input() -> None:
    network = MultiScaleSTFTDiscriminator(DiscriminatorSettings(filters=2, n_ffts=(64,)))
    for shape in ((1, 2, 100), (1, 1, 63), (1, 100)):
        with pytest.raises(ValueError, match=r"x: expected \[batch, 1, samples >= 64\]"):
            network(torch.zeros(shape))
    with pytest.raises(ValueError, match="channels"):
        MultiScaleSTFTDiscriminator(DiscriminatorSettings(), 0)
    for wrong in (
        {"filters": 0},
        {"n_ffts": ()},
        {"n_ffts": (66,)},
        {"slope": 1.0},
        {"kernel": (3, 8)},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DiscriminatorSettings(**wrong)
