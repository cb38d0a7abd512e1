"""Lengths, padding, causality and segments of the codec model."""

from __future__ import annotations

import pytest
import torch
from small import CAUSAL, SEGMENTED, ZERO_PADDED
from torch import Tensor

from encodec_fast.models.config import ModelConfig
from encodec_fast.models.encodec import EncodecModel, overlap_add
from encodec_fast.models.seanet import Conv1d, ConvTranspose1d

LENGTHS = [1, 2, 319, 320, 321, 641, 24000, 24001]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


@pytest.mark.parametrize("config", [CAUSAL, ZERO_PADDED])
@pytest.mark.parametrize("length", LENGTHS)
def test_unsegmented_lengths(config: ModelConfig, length: int) -> None:
    model = EncodecModel(config).eval()
    x = torch.randn(2, 1, length)
    with torch.no_grad():
        frames = model.encode(x, 6.0)
        assert len(frames) == 1 and frames[0][1] is None
        assert frames[0][0].shape == (2, config.n_q(6.0), -(-length // 320))
        assert model.decode(frames).shape == (2, 1, -(-length // 320) * 320)
        assert model(x, 6.0).shape == x.shape


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (1, [1]),
        (47520, [149]),
        (47521, [149, 1]),
        (48000, [150, 2]),
        (95040, [150, 149]),
        (95041, [150, 149, 1]),
        (100001, [150, 150, 16]),
    ],
)
def test_segment_lengths(length: int, expected: list[int]) -> None:
    model = EncodecModel(SEGMENTED).eval()
    with torch.no_grad():
        frames = model.encode(torch.randn(1, 2, length), 6.0)
        assert [codes.shape[-1] for codes, _ in frames] == expected
        decoded = model.decode(frames)
    assert decoded.shape[-1] == 47520 * (len(expected) - 1) + 320 * expected[-1]
    assert decoded.shape[-1] >= length


def test_scale_is_the_loudness_of_the_downmix() -> None:
    model = EncodecModel(SEGMENTED).eval()
    x = torch.randn(3, 2, 1000)
    x[1, 1] = -x[1, 0]
    with torch.no_grad():
        ((codes, scale),) = model.encode(x, 3.0)
    assert scale is not None and scale.shape == (3, 1) and codes.shape == (3, SEGMENTED.n_q(3.0), 4)
    expected = x.mean(1).pow(2).mean(1, keepdim=True).sqrt() + 1e-8
    torch.testing.assert_close(scale, expected)
    assert scale[1].item() == pytest.approx(1e-8)


def test_overlap_add_closed_form() -> None:
    first, second = torch.randn(2, 1, 48000), torch.randn(2, 1, 48000)
    joined = overlap_add([first, second], 47520)
    assert joined.shape == (2, 1, 95520)
    torch.testing.assert_close(joined[..., :47520], first[..., :47520])
    torch.testing.assert_close(joined[..., 48000:], second[..., 480:])
    new = torch.arange(1, 481) / 481
    expected = first[..., 47520:] * (1 - new) + second[..., :480] * new
    torch.testing.assert_close(joined[..., 47520:48000], expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize(
    ("config", "needs"), [(CAUSAL, [2240, 1920, 1600, 1280]), (ZERO_PADDED, [320, 640, 960, 1280])]
)
def test_causality_of_the_first_latents(config: ModelConfig, needs: list[int]) -> None:
    """Reflect padding mirrors future samples at the start; zero padding looks at none."""
    encoder = EncodecModel(config).double().encoder

    def influence(frame: int) -> int:
        x = torch.randn(1, 1, 3200, dtype=torch.float64, requires_grad=True)
        encoder(x)[0, :, frame].sum().backward()
        assert x.grad is not None
        return int(x.grad[0, 0].nonzero().max()) + 1

    assert [influence(frame) for frame in range(4)] == needs


def _padded_by_hand(x: Tensor, left: int, right: int) -> list[float]:
    """Reflect x [T], zeros appended first where it is too short; element by element."""
    values = x.tolist()
    missing = max(0, max(left, right) - len(values) + 1)
    values += [0.0] * missing
    mirrored = [values[i] for i in range(left, 0, -1)] + values
    mirrored += [values[len(values) - 2 - i] for i in range(right)]
    return mirrored[: len(mirrored) - missing]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 1), (3, 1), (10, 5), (16, 8), (4, 2)])
@pytest.mark.parametrize("length", [1, 2, 3, 8, 11, 23])
def test_convolution_padding(causal: bool, kernel: int, stride: int, length: int) -> None:
    config = CAUSAL if causal else SEGMENTED
    conv = Conv1d(1, 1, kernel, config, stride=stride)
    conv.norm = None
    x = torch.randn(1, 1, length)
    total = kernel - stride
    right = 0 if causal else total // 2
    extra = -length % stride
    padded = torch.tensor(_padded_by_hand(x[0, 0], total - right, right + extra))
    with torch.no_grad():
        y = conv(x)
        expected = conv.conv(padded[None, None])
    assert y.shape[-1] == -(-length // stride)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize(("stride", "cut"), [(8, (4, 4)), (5, (3, 2)), (4, (2, 2)), (2, (1, 1))])
def test_transposed_convolution_trims_the_odd_sample_left(
    stride: int, cut: tuple[int, int]
) -> None:
    for config, (left, right) in ((SEGMENTED, cut), (CAUSAL, (0, stride))):
        layer = ConvTranspose1d(3, 2, stride, config)
        x = torch.randn(1, 3, 6)
        with torch.no_grad():
            whole = layer.conv(x)
            if layer.norm is not None:  # the trimmed samples count in the statistics
                whole = layer.norm(whole)
            torch.testing.assert_close(layer(x), whole[..., left : whole.shape[-1] - right])
        assert layer(x).shape[-1] == 6 * stride


def test_weight_norm_is_per_first_dimension() -> None:
    model = EncodecModel(CAUSAL)
    state = model.state_dict()
    assert state["encoder.layers.3.conv.parametrizations.weight.original0"].shape == (8, 1, 1)
    assert state["decoder.layers.3.conv.parametrizations.weight.original0"].shape == (64, 1, 1)


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(1, 2, 320), torch.zeros(1, 320), torch.zeros(1, 1, 0)],
    ids=["channels", "axes", "empty"],
)
def test_wrong_waveforms_are_refused(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\[batch, 1, samples >= 1\]"):
        EncodecModel(CAUSAL).encode(wrong)


def test_wrong_segment_counts_are_refused() -> None:
    model = EncodecModel(CAUSAL)
    frame = (torch.zeros(1, 2, 1, dtype=torch.int64), None)
    with pytest.raises(ValueError, match="at least one segment"):
        model.decode([])
    with pytest.raises(ValueError, match="one segment, not 2"):
        model.decode([frame, frame])
