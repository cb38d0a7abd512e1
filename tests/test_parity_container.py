"""Files exchanged with the PyPI package in both directions, and equal bytes for equal codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from agreement import snr_db
from containers import version_0
from signals import LENGTHS, FloatArray, program_material

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="the peers need the test extra")

# Behind the skip, because what follows imports torch and the peers.
from peers import Peer, import_encodec  # noqa: E402

from encodec_fast import Codec, Codes  # noqa: E402
from encodec_fast.segments import Piece  # noqa: E402

MIN_SNR = 90.0


@pytest.fixture
def reference(fb: Any, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The PyPI package, whose model names now stand for the random peer instead of a download."""
    package = import_encodec()
    monkeypatch.setitem(package.compress.__globals__["MODELS"], peer.name, lambda: fb)
    return package


def clip(peer: Peer, length: int) -> FloatArray:
    return program_material("test", peer.sample_rate, peer.channels, 9.0)[:, -length:]


@pytest.mark.parametrize("length", LENGTHS)
def test_we_read_what_the_reference_writes(
    reference: Any, fb: Any, peer: Peer, codec: Codec, length: int
) -> None:
    wav = clip(peer, length)
    fb.set_target_bandwidth(6.0)
    data = reference.compress(fb, torch.from_numpy(wav))
    audio = codec.decompress(data)
    expected, rate = reference.decompress(data)
    assert rate == codec.sample_rate
    assert snr_db(expected.numpy(), audio) >= MIN_SNR


@pytest.mark.parametrize("length", LENGTHS)
def test_the_reference_reads_what_we_write(
    reference: Any, peer: Peer, codec: Codec, length: int
) -> None:
    data = codec.compress(clip(peer, length), bandwidth=6.0, version=0)
    expected, _ = reference.decompress(data)
    assert snr_db(expected.numpy(), codec.decompress(data)) >= MIN_SNR


@pytest.mark.parametrize("length", LENGTHS)
def test_equal_codes_give_equal_bytes(
    reference: Any, fb: Any, peer: Peer, codec: Codec, length: int
) -> None:
    """Written from the reference's codes and scales: a scale may differ in its last bit."""
    wav = torch.from_numpy(clip(peer, length))
    # At the lowest bandwidth an odd number of frames ends within a byte.
    for bandwidth in {codec.bandwidths[0], 6.0}:
        fb.set_target_bandwidth(bandwidth)
        with torch.inference_mode():
            frames = fb.encode(wav[None])
        codes = Codes(
            codes=[c[0].numpy().astype(np.uint16) for c, _ in frames],
            scales=[float(s) for _, s in frames if s is not None] or None,
            audio_length=length,
            sample_rate=codec.sample_rate,
            model=codec.name,
        )
        assert pack(codes, codec) == reference.compress(fb, wav)


def test_whole_files_have_the_reference_layout(
    reference: Any, fb: Any, peer: Peer, codec: Codec
) -> None:
    """From samples to bytes: only near-ties and last bits of scales may differ."""
    wav = clip(peer, 50000)
    fb.set_target_bandwidth(6.0)
    theirs = reference.compress(fb, torch.from_numpy(wav))
    ours = codec.compress(wav, bandwidth=6.0, version=0)
    header = 9 + int.from_bytes(theirs[5:9], "big")
    assert ours[:header] == theirs[:header]
    assert len(ours) == len(theirs)
    differing = sum(a != b for a, b in zip(ours, theirs, strict=True))
    # One code is more than one byte, and a near-tie changes the frame's later codes too.
    assert differing <= 0.02 * len(theirs)


def pack(codes: Codes, codec: Codec) -> bytes:
    """Write given codes as a version 0 file."""
    pieces = [
        Piece(array, None if codes.scales is None else codes.scales[index], start=True)
        for index, array in enumerate(codes.codes)
    ]
    return version_0(codec, codes.audio_length, len(codes.codes[0]), pieces)
