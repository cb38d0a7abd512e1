"""Version 0 files with a language model: the PyPI package's, byte for byte, in both directions.

With its codec and its language model, both with random weights; PyTorch's floats decide what such
files hold, so this is about one machine.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agreement import snr_db
from signals import FloatArray, program_material

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="the peers need the test extra")

# Behind the skip, because what follows imports torch and the peers.
from peers import Peer, import_encodec  # noqa: E402

from encodec_fast import Codec, container, decompress_file, ecdc  # noqa: E402
from encodec_fast.files import compress_file  # noqa: E402
from encodec_fast.segment_codes import load_segment_coder  # noqa: E402
from encodec_fast.segments import Piece  # noqa: E402

# The first is within a segment, the second is in two of the stereo model's.
LENGTHS = {"encodec_24khz": (1, 4001), "encodec_48khz": (1, 48321)}
MIN_SNR = 90.0


@pytest.fixture(scope="module")
def their_lm(peer: Peer, fb: Any) -> Any:
    """Random weights, sharp enough that codes cost from a few to many bits."""
    import_encodec()
    from encodec.model import LMModel

    past = int(3.5 * fb.frame_rate)
    lm = LMModel(fb.quantizer.n_q, fb.quantizer.bins, num_layers=5, dim=200, past_context=past)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        for name, value in lm.named_parameters():
            if "linears" in name or "bias" in name:
                value.normal_(std=0.1)
    return lm.eval()


@pytest.fixture(scope="module")
def lm_checkpoint(their_lm: Any, peer: Peer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language model as Meta published its own."""
    path = tmp_path_factory.mktemp(peer.name) / f"{peer.name.replace('_', '_lm_')}.th"
    torch.save(their_lm.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def lm_codec(
    codec: Codec, model: Any, lm_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Codec:
    from encodec_fast.models.export import export_model

    path = tmp_path_factory.mktemp(codec.name) / "program.safetensors"
    export_model(model, path)
    return Codec.load(path, lm_checkpoint=lm_checkpoint)


@pytest.fixture
def reference(fb: Any, their_lm: Any, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The PyPI package, whose names stand for the random peers instead of downloads."""
    package = import_encodec()
    monkeypatch.setitem(package.compress.__globals__["MODELS"], peer.name, lambda: fb)
    monkeypatch.setattr(fb, "get_lm_model", lambda: their_lm)
    fb.set_target_bandwidth(fb.target_bandwidths[0])
    yield package
    fb.set_target_bandwidth(6.0)


def clip(peer: Peer, index: int) -> FloatArray:
    length = LENGTHS[peer.name][index]
    return program_material("test", peer.sample_rate, peer.channels, 9.0)[:, -length:]


def their_codes(fb: Any, wav: FloatArray) -> list[Piece]:
    with torch.inference_mode():
        frames = fb.encode(torch.from_numpy(wav)[None])
    return [
        Piece(codes[0].numpy().astype(np.uint16), None if s is None else float(s), True)
        for codes, s in frames
    ]


@pytest.mark.parametrize("index", [0, 1])
def test_equal_codes_give_equal_bytes(
    reference: Any, fb: Any, peer: Peer, lm_codec: Codec, index: int
) -> None:
    """And both read them; cut into pieces of any length they are the same."""
    wav = clip(peer, index)
    theirs = reference.compress(fb, torch.from_numpy(wav), use_lm=True)
    pieces = their_codes(fb, wav)
    body = io.BytesIO()
    writer = lm_codec.piece_writer(len(pieces[0].codes), "lm", version=0)(body)
    for piece in pieces:
        for first in range(0, piece.codes.shape[1], 7):
            part = piece.codes[:, first : first + 7]
            writer.write(Piece(part, piece.scale, start=first == 0))
    ours = writer.finish(wav.shape[1]).to_bytes() + body.getvalue()
    assert ours == theirs
    stream = io.BytesIO(theirs)
    header = container.read_header(stream, "file")
    assert isinstance(header, ecdc.Header) and header.language_model
    _, found = lm_codec.open_recording(stream, header, "file").pieces()
    for piece, expected in zip(found, pieces, strict=True):
        np.testing.assert_array_equal(piece.codes, expected.codes)
        assert piece.scale == expected.scale


def test_whole_files(reference: Any, fb: Any, peer: Peer, lm_codec: Codec, tmp_path: Path) -> None:
    """From samples to samples, each side reading the other's."""
    wav = clip(peer, 1)
    bandwidth = lm_codec.bandwidths[0]
    data = lm_codec.compress(wav, bandwidth, entropy="lm", version=0)
    expected, _ = reference.decompress(data)
    audio = lm_codec.decompress(data)
    assert snr_db(expected.numpy(), audio) >= MIN_SNR
    theirs = reference.compress(fb, torch.from_numpy(wav), use_lm=True)
    heard, _ = reference.decompress(theirs)
    assert snr_db(heard.numpy(), lm_codec.decompress(theirs)) >= MIN_SNR
    (tmp_path / "theirs.ecdc").write_bytes(theirs)
    decompress_file(tmp_path / "theirs.ecdc", tmp_path / "theirs.wav", model=lm_codec)
    written = io.BytesIO()
    compress_file(
        lm_codec,
        tmp_path / "theirs.wav",
        written,
        bandwidth=bandwidth,
        entropy="lm",
        version=0,
    )
    assert lm_codec.decompress(written.getvalue()).shape == audio.shape


def test_damage_is_found_or_ends_in_other_codes(peer: Peer, lm_codec: Codec, codec: Codec) -> None:
    wav = clip(peer, 1)
    data = lm_codec.compress(wav, lm_codec.bandwidths[0], entropy="lm", version=0)
    with pytest.raises(EOFError, match="data: truncated"):
        lm_codec.decompress(data[:-30])
    with pytest.raises(ValueError, match="written with a language model: reading it needs"):
        codec.decompress(data)
    rng = np.random.default_rng(1)
    for _ in range(3):
        damaged = bytearray(data)
        damaged[int(rng.integers(80, len(data)))] ^= 1 << int(rng.integers(0, 8))
        try:
            audio = lm_codec.decompress(bytes(damaged))
        except (ValueError, EOFError) as error:
            assert str(error).startswith("data: ")
        else:
            assert audio.shape == wav.shape


def test_what_the_language_model_cannot_do(codec: Codec, lm_codec: Codec) -> None:
    wav = np.zeros((codec.channels, 400), np.float32)
    with pytest.raises(ValueError, match="lm_checkpoint"):
        codec.compress(wav, entropy="lm", version=0)
    with pytest.raises(ValueError, match="found 'static'"):
        lm_codec.compress(wav, entropy="static", version=0)
    with pytest.raises(ValueError, match="metadata"):
        lm_codec.compress(wav, entropy="lm", version=0, metadata={"a": 1})
    for header in (
        replace(codec.program.header, name="another"),
        replace(codec.program.header, codebook_size=512),
    ):
        with pytest.raises(ValueError, match="no language model suits"):
            load_segment_coder("encodec_lm.th", header)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.th"):
        load_segment_coder("nowhere.th", codec.program.header)
