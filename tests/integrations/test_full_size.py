"""Full-size models on real recordings: codes and sound before and after acceleration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
import torch
from integrations.small_models import snr
from signals import program_material

import encodec_fast as ef

if TYPE_CHECKING:
    from peers import Peer

SECONDS = 3.3  # an odd tail, several segments


@pytest.fixture(params=["transformers", "encodec"])
def model(request: pytest.FixtureRequest, peer: Peer) -> Iterator[Any]:
    if request.param == "encodec" and peer.fb is None:
        pytest.skip("no reference package: pip install --no-deps encodec; pip install einops")
    codec = peer.hf if request.param == "transformers" else peer.fb
    yield codec
    ef.restore(codec)


def encode(model: Any, wav: Any) -> tuple[Any, Any]:
    """What the model returns, and its codes [B, K, frames] of all segments side by side."""
    if hasattr(model, "set_target_bandwidth"):
        model.set_target_bandwidth(6.0)
        frames = model.encode(wav)
        return frames, torch.cat([codes for codes, _ in frames], dim=-1)
    out = model.encode(wav, bandwidth=6.0)
    return out, torch.cat(list(out.audio_codes), dim=-1)


def decode(model: Any, out: Any) -> Any:
    """The sound of what `encode` returned."""
    if hasattr(model, "set_target_bandwidth"):
        return model.decode(out)
    pad = out.last_frame_pad_length
    return model.decode(out.audio_codes, out.audio_scales, last_frame_pad_length=pad).audio_values


@torch.no_grad()
def test_recordings_keep_their_codes_and_sound(model: Any, peer: Peer) -> None:
    wav = program_material("test", peer.sample_rate, peer.channels, 2 * SECONDS)
    wav = torch.from_numpy(wav[:, : 2 * (wav.shape[1] // 2)])
    batch = wav.reshape(peer.channels, 2, -1).transpose(0, 1).contiguous()
    out, codes = encode(model, batch)
    audio = decode(model, out)
    ef.accelerate(model, quiet=True)
    assert "Accelerated" in repr(model)
    _, found = encode(model, batch)
    assert found.shape == codes.shape
    assert (found == codes).float().mean() >= 0.999
    heard = decode(model, out)
    assert heard.shape == audio.shape
    assert snr(audio, heard) > 90
