"""audiocraft on the native core: MusicGen's 32 kHz, AudioGen's 16 kHz, the causal 24 kHz model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from audiocraft_peer import RECIPES, SMALL, build_audiocraft_peer, settings
from integrations.small_models import noise, snr

import encodec_fast as ef

# Every cause of a warning of ours would make the comparison one of PyTorch with itself.
pytestmark = pytest.mark.filterwarnings("error:encodec_fast")


@pytest.fixture(scope="module", params=RECIPES)
def peer(request: pytest.FixtureRequest) -> Any:
    return build_audiocraft_peer(settings(request.param, **SMALL), seconds=8.0)


@pytest.fixture
def model(peer: Any) -> Iterator[Any]:
    peer.theirs.set_num_codebooks(4)
    yield peer.theirs
    ef.restore(peer.theirs)


@pytest.mark.parametrize("samples", [1, 639, 640, 30007])
@pytest.mark.parametrize("batch", [1, 3])
def test_calls_give_what_they_gave(model: Any, samples: int, batch: int) -> None:
    x = noise(batch, 1, samples)
    with torch.no_grad():
        codes, scale = model.encode(x)
        audio = model.decode(codes, scale)
        latent = model.decode_latent(codes)
        ef.accelerate(model, quiet=True)
        codes_2, scale_2 = model.encode(x)
        assert (codes.shape, codes.dtype, scale_2) == (codes_2.shape, codes_2.dtype, None)
        assert (codes != codes_2).sum() <= max(1, codes.numel() // 1000)
        found = model.decode(codes, scale)
        assert found.shape == audio.shape and snr(audio, found) > 90
        assert torch.equal(model.decode_latent(codes), latent)
        # `forward` quantises in a way of its own, with the encoder and decoder of the rest.
        result = model(x)
        assert result.x.shape == x.shape and torch.equal(result.codes, codes_2)


def test_codes_vary_and_codebooks_are_chosen(model: Any) -> None:
    ef.accelerate(model, quiet=True)
    with torch.no_grad():
        four, _ = model.encode(noise(1, 1, 60000))
        model.set_num_codebooks(2)
        two, _ = model.encode(noise(1, 1, 60000))
    assert torch.equal(four[:, :2], two)
    assert min(len(row.unique()) for row in four[0]) > 5


def test_inside_musicgen_and_behind_wrappers(model: Any) -> None:
    from audiocraft.models.encodec import InterleaveStereoCompressionModel

    class MusicGen:  # as audiocraft's: a plain object that holds the codec and the language model
        def __init__(self) -> None:
            self.compression_model = InterleaveStereoCompressionModel(model)
            self.lm = torch.nn.Linear(1, 1)

    holder = MusicGen()
    with torch.no_grad():
        codes, _ = holder.compression_model.encode(noise(1, 2, 9000))
        expected = holder.compression_model.decode(codes)
        assert ef.accelerate(holder, quiet=True) is holder
        assert "AcceleratedEncoder" in repr(model)
        found, _ = holder.compression_model.encode(noise(1, 2, 9000))
        assert (codes != found).sum() <= 1
        assert snr(expected, holder.compression_model.decode(codes)) > 90


def test_unsupported_options_are_named(model: Any) -> None:
    with pytest.warns(UserWarning, match="padding masks"):
        ef.accelerate(model, exact_lengths=True, quiet=True)
    model.quantizer.vq.layers[0].channels_last = True
    try:
        with pytest.warns(UserWarning, match="channels last"):
            ef.accelerate(model, quiet=True)
    finally:
        model.quantizer.vq.layers[0].channels_last = False
    assert "Accelerated" not in repr(model)


def test_trained_models_are_read_anew(model: Any) -> None:
    """Training moves codebooks through .data, which PyTorch does not count."""
    ef.accelerate(model, quiet=True)
    x = noise(1, 1, 9000)
    with torch.no_grad():
        before, _ = model.encode(x)
        model.train()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.encode(x)
        book = model.quantizer.vq.layers[0]._codebook.embed
        kept = book.clone()
        book.data.mul_(-1)
        model.eval()
        after, _ = model.encode(x)
        book.data.copy_(kept)
    assert (before != after).float().mean() > 0.2
