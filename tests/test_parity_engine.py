"""The native engine against PyTorch with the same weights: codes, audio and scales."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from agreement import NEAR_TIE, NOTHING, Agreement, compare_codes, snr_db
from signals import LENGTHS, FloatArray, hard_signals, program_material

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="the peers need the test extra")

# Behind the skip, because what follows imports torch and the peers.
from peers import Peer  # noqa: E402

from encodec_fast import Codec, Codes  # noqa: E402

MIN_SHARE = {6.0: 0.999, 24.0: 0.99}
MIN_DECODER_SNR = 90.0
MEASURED_SECONDS = {"encodec_24khz": 16.0, "encodec_48khz": 8.0}


def reference_codes(codec: Codec, peer: Peer, wav: FloatArray, bandwidth: float) -> Codes:
    """Encode with the peer, into the codec's own type."""
    segments = peer.encode(wav, bandwidth)
    scales = [float(scale) for _, scale in segments if scale is not None]
    return Codes(
        codes=[codes.numpy().astype(np.uint16) for codes, _ in segments],
        scales=scales or None,
        audio_length=wav.shape[1],
        sample_rate=codec.sample_rate,
        model=codec.name,
    )


def peer_audio(peer: Peer, codes: Codes) -> FloatArray:
    """Decode with the peer and trim to the audio's length, as the command lines do."""
    scales = codes.scales or [None] * len(codes.codes)
    segments = [
        (torch.from_numpy(c.astype(np.int64)), None if s is None else torch.tensor([s]))
        for c, s in zip(codes.codes, scales, strict=True)
    ]
    audio: FloatArray = peer.decode(segments).numpy()
    return audio[:, : codes.audio_length]


def latents_of(codec: Codec, peer: Peer, wav: FloatArray) -> list[FloatArray]:
    """What the peer quantises, one array [D, F] for each segment that the model cuts."""
    if codec.segment_length is None or codec.segment_stride is None:
        return [peer.latents(wav).numpy()]
    starts = range(0, wav.shape[1], codec.segment_stride)
    return [peer.latents(wav[:, s : s + codec.segment_length]).numpy() for s in starts]


def compare(expected: Codes, found: Codes, latents: list[FloatArray], peer: Peer) -> Agreement:
    """Compare what must hold for any signal: shapes and scales, and codes but for near-ties."""
    assert found.audio_length == expected.audio_length
    assert (found.scales is None) == (expected.scales is None)
    if found.scales is not None and expected.scales is not None:
        # Equal but for the order in which the squares were added.
        np.testing.assert_allclose(found.scales, expected.scales, rtol=2e-6, atol=0)
    books = peer.codebooks().numpy()
    total = NOTHING
    for ours, theirs, vectors in zip(found.codes, expected.codes, latents, strict=True):
        assert ours.dtype == np.uint16
        total += compare_codes(theirs, ours, vectors, books)
    assert total.widest_margin < NEAR_TIE
    return total


@pytest.fixture(scope="module")
def measured(codec: Codec, peer: Peer) -> tuple[FloatArray, Codes, list[FloatArray]]:
    """Enough audio to measure shares on: samples, the peer's codes at 24 kbps, its latents."""
    seconds = MEASURED_SECONDS[peer.name]
    wav = program_material("test", peer.sample_rate, peer.channels, seconds)
    return wav, reference_codes(codec, peer, wav, 24.0), latents_of(codec, peer, wav)


@pytest.mark.parametrize("bandwidth", MIN_SHARE)
def test_share_of_equal_codes(
    codec: Codec,
    peer: Peer,
    measured: tuple[FloatArray, Codes, list[FloatArray]],
    bandwidth: float,
) -> None:
    wav, codes, latents = measured
    # Quantisation is residual: fewer codebooks are the first of many.
    expected = replace(codes, codes=[c[: codec.n_q(bandwidth)] for c in codes.codes])
    agreement = compare(expected, codec.encode(wav, bandwidth), latents, peer)
    print(f"{peer.name} {bandwidth:g} kbps: {agreement}, share {agreement.share_equal:.6f}")
    assert agreement.share_equal >= MIN_SHARE[bandwidth]


def test_decoder_at_the_highest_bandwidth(
    codec: Codec, peer: Peer, measured: tuple[FloatArray, Codes, list[FloatArray]]
) -> None:
    _, codes, _ = measured
    audio = codec.decode(codes)
    assert audio.dtype == np.float32
    snr = snr_db(peer_audio(peer, codes), audio)
    print(f"{peer.name}: decoder at {snr:.1f} dB")
    assert snr >= MIN_DECODER_SNR


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths(codec: Codec, peer: Peer, length: int) -> None:
    wav = program_material("test", peer.sample_rate, peer.channels, 9.0)[:, -length:]
    expected = reference_codes(codec, peer, wav, 6.0)
    agreement = compare(expected, codec.encode(wav, 6.0), latents_of(codec, peer, wav), peer)
    # One near-tie in a short signal is no failure; the share is measured on a long one.
    assert agreement.frames_differing <= max(1, int((1 - MIN_SHARE[6.0]) * agreement.codes))
    snr = snr_db(peer_audio(peer, expected), codec.decode(expected))
    assert snr >= MIN_DECODER_SNR, f"{snr:.1f} dB"


def test_hard_signals(codec: Codec, peer: Peer) -> None:
    """Channels that cancel have the scale 1e-8, and their samples reach the encoder 1e8 times as
    large: group norm brings them back, so the same bars hold as for any other signal."""
    # Long enough for a share: in one second, one near-tie would be more than the bar allows.
    for name, wav in hard_signals(peer.channels, 240001).items():
        expected = reference_codes(codec, peer, wav, 6.0)
        latents = latents_of(codec, peer, wav)
        agreement = compare(expected, codec.encode(wav, 6.0), latents, peer)
        print(f"{peer.name} {name}: {agreement}, share {agreement.share_equal:.6f}")
        assert agreement.share_equal >= MIN_SHARE[6.0], name
        snr = snr_db(peer_audio(peer, expected), codec.decode(expected))
        assert snr >= MIN_DECODER_SNR, f"{name}: {snr:.1f} dB"
