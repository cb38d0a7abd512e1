"""transformers' models on the native core: what a caller sees stays what it was.

Runs with transformers 4.40 too, whose 48 kHz models want input that the processor has padded.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("transformers", reason="needs the test extra")

import torch
import transformers
from integrations.small_models import noise, small_model, snr

import encodec_fast as ef

OLD = int(transformers.__version__.split(".")[0]) < 5


@pytest.fixture(params=["24khz", "48khz"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """(original, accelerated)."""
    original, model = small_model(request.param), small_model(request.param)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "encodec_fast")
        yield original, ef.accelerate(model, quiet=True)


def processed(model: Any, lengths: list[int]) -> Any:
    """What the processor makes of recordings of these lengths."""
    config = model.config
    processor = transformers.EncodecFeatureExtractor(
        feature_size=config.audio_channels,
        sampling_rate=config.sampling_rate,
        chunk_length_s=config.chunk_length_s,
        overlap=config.overlap,
    )
    audio = [noise(1, config.audio_channels, n, seed=n)[0].numpy() for n in lengths]
    raw = [a[0] if len(a) == 1 else a for a in audio]
    return processor(raw_audio=raw, sampling_rate=config.sampling_rate, return_tensors="pt")


def check_same(a: Any, b: Any) -> None:
    """Outputs of both models: same class and fields, same codes but for near-ties, same sound."""
    assert type(a) is type(b)
    assert list(a.keys()) == list(b.keys())
    for name in a:
        x, y = a[name], b[name]
        if name == "audio_codes":
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            assert (x == y).float().mean() >= 0.999
            assert len(x.unique()) > 30  # codes that vary
        elif name == "audio_values":
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            assert snr(x, y) > 90
        elif name == "audio_scales":
            assert [s is None for s in x] == [s is None for s in y]
            for s, t in zip(x, y, strict=True):
                assert s is None or torch.equal(s, t)
        else:
            assert x == y


@pytest.mark.parametrize("lengths", [[24000], [48011, 30007, 7]], ids=["single", "batch"])
def test_the_documented_example(pair: tuple[Any, Any], lengths: list[int]) -> None:
    original, model = pair
    if OLD and len(lengths) > 1 and model.config.audio_channels == 2:
        pytest.skip("transformers 4.40 cannot encode a batch of stereo at all")
    inputs = processed(model, lengths)
    for bandwidth in [None, *model.config.target_bandwidths]:
        a, b = (
            m.encode(inputs["input_values"], inputs["padding_mask"], bandwidth)
            for m in (original, model)
        )
        check_same(a, b)
    padding = {k: v for k, v in a.items() if k == "last_frame_pad_length"}
    mask = inputs["padding_mask"]
    a, b = (m.decode(a.audio_codes, a.audio_scales, mask, **padding) for m in (original, model))
    check_same(a, b)
    a, b = (m(inputs["input_values"], mask) for m in (original, model))
    assert (a.audio_codes == b.audio_codes).float().mean() >= 0.999


@pytest.mark.skipif(OLD, reason="transformers 4.40 refuses them at 48 kHz")
@pytest.mark.parametrize("samples", [1, 7, 79, 1283, 48000, 48001, 96480])
def test_any_length_without_the_processor(pair: tuple[Any, Any], samples: int) -> None:
    original, model = pair
    x = noise(3, model.config.audio_channels, samples)
    with torch.no_grad():
        a, b = original.encode(x, bandwidth=7.2), model.encode(x, bandwidth=7.2)
        assert (a.audio_codes != b.audio_codes).sum() <= max(1, a.audio_codes.numel() // 1000)
        a, b = (
            m.decode(a.audio_codes, a.audio_scales, None, True, a.last_frame_pad_length)
            for m in (original, model)
        )
        assert a.audio_values.shape == b.audio_values.shape
        assert snr(a.audio_values, b.audio_values) > 90


def test_tuples(pair: tuple[Any, Any]) -> None:
    original, model = pair
    inputs = processed(model, [24000])
    for m in pair:
        out = m.encode(inputs["input_values"], inputs["padding_mask"], return_dict=False)
        assert type(out) is tuple
    assert len(out) == len(
        original.encode(inputs["input_values"], inputs["padding_mask"], return_dict=False)
    )


def test_errors_stay_those_of_transformers(pair: tuple[Any, Any]) -> None:
    for m in pair:
        with pytest.raises(ValueError, match="bandwidth"):
            m.encode(noise(1, m.config.audio_channels, 24000), bandwidth=5.0)
        with pytest.raises(RuntimeError, match=r"channels|[Pp]adding"):
            m.encoder(noise(1, m.config.audio_channels + 2, 100))


def test_the_parts_alone(pair: tuple[Any, Any]) -> None:
    """As Bark does: codes through the quantiser, its latents through the decoder."""
    original, model = pair
    with torch.no_grad():
        latents = original.encoder(noise(2, model.config.audio_channels, 9000))
        assert snr(latents, model.encoder(noise(2, model.config.audio_channels, 9000))) > 90
        codes = model.quantizer.encode(latents, 7.2)
        assert (codes == original.quantizer.encode(latents, 7.2)).float().mean() > 0.999
        assert torch.equal(original.quantizer.decode(codes), model.quantizer.decode(codes))
        assert snr(original.decoder(latents), model.decoder(latents)) > 90


def test_threads_and_batches_give_the_same_bits(pair: tuple[Any, Any]) -> None:
    _, model = pair
    x = noise(19, model.config.audio_channels, 9001)
    with torch.no_grad():
        alone = torch.cat([model.encoder(item[None]) for item in x])
        assert torch.equal(alone, model.encoder(x))
        ef.accelerate(model, threads=3, quiet=True)
        assert torch.equal(alone, model.encoder(x))


def test_state_and_copies(pair: tuple[Any, Any], tmp_path: Any) -> None:
    original, model = pair
    state = model.state_dict()
    assert state.keys() == original.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in original.state_dict().items())
    x = noise(1, model.config.audio_channels, 24000)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        expected = model.encoder(x)
        model.encoder.layers[0].conv.bias.add_(1.0)  # the copy has weights of its own
        assert torch.equal(twin.encoder(x), expected)
        assert not torch.equal(model.encoder(x), expected)
    twin.save_pretrained(tmp_path)
    loaded = transformers.EncodecModel.from_pretrained(tmp_path).eval()
    assert type(loaded.encoder) is type(original.encoder)
    with torch.no_grad():
        assert snr(loaded.encoder(x), expected) > 90


def test_restore(pair: tuple[Any, Any]) -> None:
    original, model = pair
    assert ef.restore(model) is model
    assert repr(model) == repr(original)
    assert type(model.encoder) is type(original.encoder)
    assert [vars(m).keys() for m in model.modules()] == [vars(m).keys() for m in original.modules()]
    x = noise(1, model.config.audio_channels, 9000)
    with torch.no_grad():
        assert torch.equal(model.encoder(x), original.encoder(x))
    assert ef.restore(model) is model


@pytest.mark.skipif(OLD, reason="transformers 4.40 refuses the unpadded items at 48 kHz")
@pytest.mark.parametrize("rate", ["24khz", "48khz"])
def test_exact_lengths(rate: str) -> None:
    model = ef.accelerate(small_model(rate), exact_lengths=True, quiet=True)
    lengths = [100001, 30007, 96000]
    inputs = processed(model, lengths)
    with torch.no_grad():
        out = model.encode(inputs["input_values"], inputs["padding_mask"], 7.2)
        rows = model.encode(inputs["input_values"], inputs["padding_mask"], 7.2, return_dict=False)
        assert torch.equal(rows[0], out.audio_codes) and rows[2] == out.last_frame_pad_length
        for item, n in enumerate(lengths):
            alone = model.encode(inputs["input_values"][item : item + 1, :, :n], None, 7.2)
            chunks, _, _, frames = alone.audio_codes.shape
            assert torch.equal(out.audio_codes[:chunks, item, :, :frames], alone.audio_codes[:, 0])
            assert out.audio_codes[chunks:, item].sum() == 0
            for chunk in range(len(out.audio_scales)):
                scale = out.audio_scales[chunk]
                assert (scale is None) == (rate == "24khz")
                if scale is not None:
                    expected = alone.audio_scales[chunk][0] if chunk < chunks else torch.zeros(1)
                    assert torch.equal(scale[item], expected)
        audio = model.decode(
            out.audio_codes, out.audio_scales, last_frame_pad_length=out.last_frame_pad_length
        ).audio_values
        assert audio.shape[-1] >= max(lengths)
        with pytest.raises(ValueError, match="side by side"):
            model.encode(inputs["input_values"], inputs["padding_mask"] * 0)
    assert type(ef.restore(model)) is transformers.EncodecModel
