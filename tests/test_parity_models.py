"""Our PyTorch model against transformers and the PyPI package: equal codes, equal audio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import snr_db
from signals import LENGTHS, hard_signals, program_material

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="the peers need the test extra")

# Behind the skip, because what follows imports torch and the peers.
from peers import Peer, fb_state_dict  # noqa: E402

from encodec_fast.models.checkpoints import load_checkpoint  # noqa: E402
from encodec_fast.models.encodec import EncodecModel  # noqa: E402

AUDIO_TOLERANCE = 1e-5


def assert_same(model: EncodecModel, peer: Peer, wav: np.ndarray, bandwidth: float) -> None:
    """Codes and scales equal to transformers', audio within the tolerance of the scale's size."""
    expected = peer.encode(wav, bandwidth)
    batch = torch.from_numpy(wav)[None]
    with torch.inference_mode():
        found = model.encode(batch, bandwidth)
        assert len(found) == len(expected)
        for (codes, scale), (peer_codes, peer_scale) in zip(found, expected, strict=True):
            assert torch.equal(codes[0], peer_codes)
            assert (scale is None) == (peer_scale is None)
            if scale is not None:
                assert torch.allclose(scale[0], peer_scale, rtol=1e-6, atol=0)
        audio = model.decode(found)[0]
        peer_audio = peer.decode(expected)
    assert audio.shape == peer_audio.shape
    assert (audio - peer_audio).abs().max().item() <= AUDIO_TOLERANCE


@pytest.mark.parametrize("length", LENGTHS)
def test_equals_transformers(model: EncodecModel, peer: Peer, length: int) -> None:
    wav = program_material("test", peer.sample_rate, peer.channels, 9.0)[:, -length:]
    assert_same(model, peer, wav, 6.0)


def test_hard_signals(model: EncodecModel, peer: Peer) -> None:
    for wav in hard_signals(peer.channels).values():
        assert_same(model, peer, wav, 6.0)


def test_every_bandwidth(model: EncodecModel, peer: Peer) -> None:
    wav = program_material("test", peer.sample_rate, peer.channels, 2.0)
    for bandwidth in model.config.bandwidths:
        assert_same(model, peer, wav, bandwidth)


def test_a_batch_equals_its_items(model: EncodecModel, peer: Peer) -> None:
    wav = program_material("test", peer.sample_rate, peer.channels, 6.0)
    halves = torch.from_numpy(np.stack(np.split(wav, 2, axis=1)))
    with torch.inference_mode():
        together = model.encode(halves, 6.0)
        for index in range(2):
            alone = model.encode(halves[index : index + 1], 6.0)
            for (codes, _), (alone_codes, _) in zip(together, alone, strict=True):
                # Batched products may round differently in PyTorch: nearly all, not all.
                assert (codes[index] == alone_codes[0]).float().mean() > 0.98


def test_weights_from_a_meta_checkpoint(model: EncodecModel, peer: Peer, tmp_path: Path) -> None:
    path = tmp_path / f"{peer.name}.th"
    torch.save(fb_state_dict(peer.hf.state_dict()), path)
    other = load_checkpoint(path, peer.name)
    assert other.config == model.config
    state = model.state_dict()
    assert other.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items())


def test_equals_the_reference_package(model: EncodecModel, peer: Peer, fb: Any) -> None:
    wav = program_material("test", peer.sample_rate, peer.channels, 3.3)
    batch = torch.from_numpy(wav)[None]
    fb.set_target_bandwidth(6.0)
    with torch.inference_mode():
        expected = fb.encode(batch)
        found = model.encode(batch, 6.0)
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(found, expected, strict=True))
        audio, fb_audio = model.decode(found), fb.decode(expected)
    assert snr_db(fb_audio.numpy(), audio.numpy()) > 100
    assert (audio - fb_audio).abs().max().item() <= AUDIO_TOLERANCE
