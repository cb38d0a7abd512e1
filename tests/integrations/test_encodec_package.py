"""The reference package on the native core."""

from __future__ import annotations

import importlib
import io
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from integrations.small_models import fit_codebooks, noise, scale_weights, snr
from peers import import_encodec
from torch import nn

import encodec_fast as ef

encodec: Any = import_encodec()
COMPRESS: Any = importlib.import_module("encodec.compress")  # encodec.compress is a function
RATES = {
    "24khz": ([1.8, 7.2], 24000, 1, {"causal": True, "norm": "weight_norm"}, {}),
    "48khz": (
        [7.2, 14.4],
        48000,
        2,
        {"causal": False, "norm": "time_group_norm"},
        {"normalize": True, "segment": 1.0},
    ),
}


def small_model(rate: str, **changes: Any) -> Any:
    """A small encodec.EncodecModel under a released one's name, so that compress takes it."""
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

    bandwidths, sample_rate, channels, layers, more = RATES[rate]
    sizes = {"channels": channels, "dimension": 32, "n_filters": 8, "ratios": [5, 4, 2, 2]}
    layers = {**sizes, **layers, **changes}
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its weight norm is PyTorch's old one
        torch.manual_seed(0)
        n_q = int(1000 * bandwidths[-1] // (sample_rate // 80 * 6))
        quantizer = ResidualVectorQuantizer(dimension=32, n_q=n_q, bins=64, kmeans_init=False)
        model = encodec.EncodecModel(
            SEANetEncoder(**layers),
            SEANetDecoder(**layers),
            quantizer,
            bandwidths,
            sample_rate,
            channels,
            name=f"encodec_{rate}",
            **more,
        ).eval()
        scale_weights(model)
        fit_codebooks(model.encoder, quantizer.vq.layers, noise(1, channels, 24000))
    model.set_target_bandwidth(7.2)
    return model


@pytest.fixture(params=["24khz", "48khz"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """(original, accelerated)."""
    original, model = small_model(request.param), small_model(request.param)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "encodec_fast")
        yield original, ef.accelerate(model, quiet=True)
    ef.restore(model)


@pytest.mark.parametrize("samples", [1, 79, 1283, 48001, 96480])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_documented_example(pair: tuple[Any, Any], samples: int, batch: int) -> None:
    original, model = pair
    wav = noise(batch, model.channels, samples)
    with torch.no_grad():
        a, b = original.encode(wav), model.encode(wav)
        assert type(a) is type(b) and len(a) == len(b)
        for (codes, scale), (codes_2, scale_2) in zip(a, b, strict=True):
            assert (codes.shape, codes.dtype) == (codes_2.shape, codes_2.dtype)
            assert (codes != codes_2).sum() <= max(1, codes.numel() // 1000)
            assert (scale is None and scale_2 is None) or torch.equal(scale, scale_2)
        joined = torch.cat([frame[0] for frame in b], dim=-1)
        assert joined.shape[:2] == (batch, 4 if model.channels == 1 else 2)
        assert snr(original.decode(a), model.decode(a)) > 90
        assert snr(original(wav), model(wav)) > 30  # a near-tie may decode to another sound


def test_codes_vary(pair: tuple[Any, Any]) -> None:
    _, model = pair
    with torch.no_grad():
        codes = model.encode(noise(1, model.channels, 48000))[0][0]
    assert min(len(row.unique()) for row in codes[0]) > 8


def test_bandwidths(pair: tuple[Any, Any]) -> None:
    original, model = pair
    wav = noise(1, model.channels, 5000)
    for bandwidth in [None, *model.target_bandwidths]:
        with torch.no_grad():
            for m in pair:
                m.bandwidth = bandwidth
            a, b = original.encode(wav)[0][0], model.encode(wav)[0][0]
        assert torch.equal(a, b)


class Lm(nn.Module):
    """A language model with the reference's interface that is quick and far from uniform."""

    def forward(self, x: Any, states: Any, offset: int) -> Any:
        _, n_q, _ = x.shape
        logits = torch.sin(torch.arange(64.0)[:, None] * (1 + torch.arange(n_q)) + x[0, :, 0])
        return torch.softmax(2 * logits, 0)[None, :, :, None], None, offset + 1


@pytest.mark.parametrize("use_lm", [False, True])
def test_compress_stays_interchangeable(pair: tuple[Any, Any], use_lm: bool) -> None:
    original, model = pair
    for m in pair:
        m.get_lm_model = Lm
    package = COMPRESS
    wav = noise(1, model.channels, 60000)[0]
    with torch.no_grad():
        same = all(
            torch.equal(a[0], b[0])
            for a, b in zip(original.encode(wav[None]), model.encode(wav[None]), strict=True)
        )
    assert same  # this seed has no near-tie
    fast = package.compress(model, wav, use_lm=use_lm)
    package.MODELS[model.name], kept = (lambda: model), package.MODELS[model.name]
    try:
        decoded, rate = package.decompress(fast)
        streamed, _ = package.decompress_from_file(Forward(fast))
        ef.restore(model)
        assert package.ArithmeticCoder.__module__ == "encodec.quantization.ac"
        assert package.compress(model, wav, use_lm=use_lm) == fast
        expected, rate_2 = package.decompress(fast)
    finally:
        package.MODELS[model.name] = kept
    assert rate == rate_2
    assert torch.equal(decoded, streamed)
    assert snr(expected, decoded) > 90


class Forward(io.RawIOBase):
    """A stream that cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)

    def seekable(self) -> bool:
        return False


def test_damaged_streams_end_as_before() -> None:
    model = ef.accelerate(small_model("24khz"), quiet=True)
    model.get_lm_model = Lm
    package = COMPRESS
    data = package.compress(model, noise(1, 1, 9000)[0], use_lm=True)
    package.MODELS[model.name], kept = (lambda: model), package.MODELS[model.name]
    try:
        with pytest.raises(EOFError):
            package.decompress(data[:-20])
    finally:
        package.MODELS[model.name] = kept
        ef.restore(model)


def test_pickled_models_go_on() -> None:
    model = ef.accelerate(small_model("24khz"), quiet=True)
    wav = noise(1, 1, 5000)
    with torch.no_grad():
        latents = model.encoder(wav)
        model.decoder(latents)
        twin = pickle.loads(pickle.dumps(model))
        assert twin.encoder.native_part.handle != model.encoder.native_part.handle
        assert torch.equal(twin.encoder(wav), latents)
        assert twin.state_dict().keys() == small_model("24khz").state_dict().keys()
    ef.restore(model)
    ef.restore(twin)


def test_the_old_weight_norm_is_read_as_it_is() -> None:
    """Its `weight` is set in the next forward only; what counts is weight_g and weight_v."""
    original, model = small_model("24khz"), ef.accelerate(small_model("24khz"), quiet=True)
    wav = noise(1, 1, 5000)
    with torch.no_grad():
        model.encoder(wav)
        for m in (original, model):
            m.encoder.model[0].conv.conv.weight_g.mul_(1.5)
        assert snr(original.encoder(wav), model.encoder(wav)) > 90
    ef.restore(model)


def test_codebooks_that_training_moved_are_read_anew() -> None:
    """Its moving averages write through .data, in the quantiser's forward."""
    original, model = small_model("24khz"), ef.accelerate(small_model("24khz"), quiet=True)
    latents = torch.randn(2, 32, 200)
    before = model.quantizer.encode(latents, 300, 7.2)
    for m in (original, model):
        m.train()
        for _ in range(5):
            m.quantizer(latents * 3, 300, 7.2)
        m.eval()
    after = model.quantizer.encode(latents, 300, 7.2)
    assert torch.equal(after, original.quantizer.encode(latents, 300, 7.2))
    assert not torch.equal(after, before)
    ef.restore(model)


def test_models_that_are_not_accelerated_code_beside_one_that_is() -> None:
    plain, model = small_model("24khz"), small_model("24khz")
    for m in (plain, model):
        m.get_lm_model = Lm
    wav = noise(1, 1, 9000)[0]
    expected = COMPRESS.compress(plain, wav, use_lm=True)
    original = COMPRESS.ArithmeticCoder
    ef.accelerate(model, quiet=True)
    assert COMPRESS.compress(plain, wav, use_lm=True) == expected
    # As if `accelerate` came while another thread was in the midst of a file.
    COMPRESS.ArithmeticCoder = original
    try:
        assert COMPRESS.compress(plain, wav, use_lm=True) == expected
    finally:
        ef.restore(model)


def test_unsupported_parts_are_named() -> None:
    for changes, what in (
        ({"activation": "GELU", "activation_params": {}}, "GELU"),
        ({"norm": "spectral_norm"}, "spectral_norm"),
        ({"n_residual_layers": 2}, "dilation"),
    ):
        model = small_model("24khz", **changes)
        with pytest.warns(UserWarning, match=what):
            ef.accelerate(model, quiet=True)
        assert "Accelerated" not in repr(model)
        assert COMPRESS.ArithmeticCoder.__module__ == "encodec.quantization.ac"
    with pytest.warns(UserWarning, match="padding masks"):
        ef.accelerate(small_model("24khz"), exact_lengths=True)
