"""Version 1 files of whole codecs: entropy modes, chunks, ranges, and what damage costs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from entropies import tiny_entropy
from programs import HOP, tiny_program
from signals import FloatArray

import encodec_fast as ef
from encodec_fast import container, decoding
from encodec_fast.chunk_codes import PieceReader
from encodec_fast.segments import Gap, Piece

KINDS = ("reflect", "constant", "segments")
ENTROPIES = ("none", "static", "lm")
RATE = 8000
CHUNK = 0.03  # seconds: 40 frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        tiny_program(folder, kind)
        tiny_entropy(folder, kind)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def codec(request: pytest.FixtureRequest, folder: Path) -> ef.Codec:
    return ef.Codec.load(folder / f"tiny_{request.param}.safetensors")


@pytest.fixture(scope="module")
def causal(folder: Path) -> ef.Codec:
    return ef.Codec.load(folder / "tiny_reflect.safetensors")


def recording(samples: int = 3001) -> FloatArray:
    rng = np.random.default_rng(samples)
    walk = np.cumsum(rng.standard_normal((1, samples)), axis=1)
    return (0.05 * walk).astype(np.float32)


def compressed(
    codec: ef.Codec, wav: FloatArray, entropy: str = "none", chunk: float = CHUNK, key: int = 2
) -> bytes:
    """As Codec.compress, in short chunks and key intervals of `key` chunks."""
    n_q = codec.n_q(6.0)
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("encodec_fast.chunk_codes.KEY_SECONDS", key * chunk)
        writer = codec.piece_writer(n_q, entropy, chunk=chunk)(buffer)
    encoder = codec.block_encoder(n_q)
    for piece in [*encoder.push(wav), *encoder.flush()]:
        writer.write(piece)
    writer.finish(wav.shape[1])
    return buffer.getvalue()


def reader_of(codec: ef.Codec, data: bytes, live: bool = False) -> PieceReader:
    stream = io.BytesIO(data)
    opened = container.read_header(stream, "file")
    found = codec.open_recording(stream, opened, "file", live)
    assert isinstance(found, PieceReader)
    return found


def codes_of(codec: ef.Codec, data: bytes, live: bool = False) -> np.ndarray:
    """All codes [n_q, frames]; lost frames (segments) are -1."""
    _, pieces = reader_of(codec, data, live).pieces()
    parts = []
    for piece in pieces:
        if isinstance(piece, Piece):
            parts.append(piece.codes.astype(np.int64))
        else:
            frames = piece.length * (17 if codec.segment_length else 1)
            parts.append(np.full((codec.n_q(6.0), frames), -1))
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("samples", [1, 5, 6, 90, 91, 100, 101, 240, 241, 3001])
def test_round_trip(codec: ef.Codec, entropy: str, samples: int) -> None:
    wav = recording(samples)
    expected = codec.decode(codec.encode(wav))
    whole = np.concatenate(codec.encode(wav).codes, axis=1)
    for data in (codec.compress(wav, entropy=entropy), compressed(codec, wav, entropy)):
        assert np.array_equal(codec.decompress(data, strict=True), expected)
        for live in (False, True):
            assert np.array_equal(codes_of(codec, data, live), whole)
        # As from a pipe.
        assert np.array_equal(
            ef.Codec(codec.program, 1, codec._entropy_file).decompress(data), expected
        )


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize("chunk", [0.0001, 0.01, CHUNK, 10.0])
def test_chunks_change_no_code(codec: ef.Codec, entropy: str, chunk: float) -> None:
    wav = recording()
    data = compressed(codec, wav, entropy, chunk, key=3)
    assert np.array_equal(codec.decompress(data), codec.decode(codec.encode(wav)))


def test_entropy_coding_saves(causal: ef.Codec, folder: Path) -> None:
    """Codes drawn from the tables themselves take fewer bytes with them."""
    model = causal.entropy_model
    assert model is not None and model.tables is not None
    rng = np.random.default_rng(0)
    shares = model.tables / model.tables.sum(axis=1, keepdims=True)
    codes = np.stack([rng.choice(32, 4000, p=row) for row in shares]).astype(np.uint16)
    sizes = {}
    for entropy in ("none", "static"):
        buffer = io.BytesIO()
        writer = causal.piece_writer(4, entropy)(buffer)
        writer.write(Piece(codes, None, True))
        writer.finish(4000 * HOP)
        sizes[entropy] = len(buffer.getvalue())
    bits = -sum(np.log2(shares[book, row]).sum() for book, row in enumerate(codes))
    assert bits / 8 < sizes["static"] < bits / 8 + 150 < 0.98 * sizes["none"]


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_every_instruction_set_writes_the_same_bytes(
    folder: Path, tmp_path: Path, entropy: str
) -> None:
    np.save(tmp_path / "wav.npy", recording(9000))
    program = (
        "import sys, numpy as np, encodec_fast as ef\n"
        "for kind in ('reflect', 'segments'):\n"
        f"    path = {str(folder)!r} + f'/tiny_{{kind}}.safetensors'\n"
        "    codec = ef.Codec.load(path, threads=int(sys.argv[2]))\n"
        f"    data = codec.compress(np.load('wav.npy'), entropy={entropy!r})\n"
        "    open(f'{kind}{sys.argv[1]}', 'wb').write(data)\n"
        "    wav = codec.decompress(open(kind, 'rb').read() if sys.argv[1] else data)\n"
        "    open(f'{kind}{sys.argv[1]}.wav', 'wb').write(wav.tobytes())\n"
    )
    for label, isa, threads in [
        ("", "portable", "1"),
        *[(f"-{isa}-{n}", isa, n) for isa in ef.cpu_info()["supported"] for n in ("1", "4")],
    ]:
        subprocess.run(
            [sys.executable, "-c", program, label, threads],
            env={**os.environ, "ENCODEC_FAST_ISA": isa},
            cwd=tmp_path,
            check=True,
        )
        for kind in ("reflect", "segments"):
            for suffix in ("", ".wav"):
                expected = (tmp_path / f"{kind}{suffix}").read_bytes()
                assert (tmp_path / f"{kind}{label}{suffix}").read_bytes() == expected


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_a_flipped_byte_costs_a_key_interval_at_most(codec: ef.Codec, entropy: str) -> None:
    wav = recording(4000)
    data = compressed(codec, wav, entropy)
    whole = codes_of(codec, data)
    rng = np.random.default_rng(1)
    interval = 17 if codec.segment_length else 2 * 40
    size = container_size(data)
    for _ in range(60):
        changed = bytearray(data)
        changed[rng.integers(size, len(data))] ^= 1 << int(rng.integers(0, 8))
        found = codes_of(codec, bytes(changed))[:, : whole.shape[1]]
        kept = found[0] >= 0
        assert np.array_equal(found[:, kept], whole[:, : len(kept)][:, kept])
        assert whole.shape[1] - kept.sum() <= interval


def container_size(data: bytes) -> int:
    opened = container.read_header(io.BytesIO(data))
    assert isinstance(opened, container.Opened)
    return opened.size


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_lost_time_is_named_and_silent(codec: ef.Codec, entropy: str) -> None:
    wav = recording(4000)
    data = bytearray(compressed(codec, wav, entropy))
    expected = codec.decompress(bytes(data))
    data[len(data) // 2] ^= 16
    with pytest.warns(ef.DamageWarning) as caught:
        found = codec.decompress(bytes(data))
    (lost,) = caught[0].message.lost  # type: ignore[union-attr]
    assert found.shape == expected.shape
    first, end = (round(second * RATE) for second in lost)
    assert 0 < end - first <= (90 if codec.segment_length else 2 * 40 * HOP)
    # Overlapping neighbours fade out and in.
    edge = 12 if codec.segment_length else 0
    assert not found[:, first + edge : end].any() and found[:, first - 50 : first].any()
    assert np.array_equal(found[:, :first], expected[:, :first])
    with pytest.raises(ValueError, match="data: damaged"):
        codec.decompress(bytes(data), strict=True)


def test_lost_ends(codec: ef.Codec) -> None:
    wav = recording(4000)
    data = compressed(codec, wav)
    expected = codec.decompress(data)
    for size in (len(data) - 1, len(data) * 2 // 3, container_size(data) + 60):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = codec.decompress(data[:size])
        length = found.shape[1]
        assert length <= 4000
        # The last segment lacks the one that would overlap with it.
        same = length - 20 if codec.segment_length and length < 4000 else length
        assert np.array_equal(found[:, :same], expected[:, :same])
        assert (length < 4000) == bool(caught)
    for size in range(0, container_size(data) + 20):
        with pytest.raises((EOFError, ValueError)):
            codec.decompress(data[:size])


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize(
    ("start", "duration"), [(0.0, 0.1), (0.1, 0.05), (0.2, None), (0.37, 1.0), (0.499, 0.0005)]
)
def test_ranges(codec: ef.Codec, entropy: str, start: float, duration: float | None) -> None:
    data = compressed(codec, recording(4000), entropy)
    first, last = (
        round(start * RATE),
        None if duration is None else round((start + duration) * RATE),
    )
    expected = codec.decompress(data)[:, first:last]
    for live in (False, True):  # with the index and without

        def decoded(exact: bool, live: bool = live) -> FloatArray:
            reader = reader_of(codec, data, live)
            blocks = decoding.decoded(
                codec.program, reader, "file", start=start, duration=duration, exact=exact
            )
            return np.concatenate(list(blocks), axis=1)

        assert np.array_equal(decoded(exact=True), expected)
        near = decoded(exact=False)
        assert near.shape == expected.shape
        if codec.segment_length:
            assert np.array_equal(near, expected)


def test_a_range_reads_little(causal: ef.Codec) -> None:
    data = compressed(causal, recording(40000), "lm")

    class Counting(io.BytesIO):
        total = 0

        def read1(self, size: int | None = -1) -> bytes:
            data = super().read1(min(size or 0, 100))
            self.total += len(data)
            return data

    stream = Counting(data)
    recorded = causal.open_recording(stream, container.read_header(stream), "file")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "PREROLL_SECONDS", 0.01)
        blocks = decoding.decoded(causal.program, recorded, "file", start=4.5, duration=0.01)
        assert sum(block.shape[1] for block in blocks) == 80
    assert stream.total < len(data) / 4


@pytest.mark.parametrize("bad", [-1.0, float("nan"), 1e12, "1", True])
def test_ranges_that_are_none(causal: ef.Codec, tmp_path: Path, bad: object) -> None:
    (tmp_path / "a.ecdc").write_bytes(causal.compress(recording(4000)))
    for arguments in ({"start": bad}, {"duration": bad}):
        with pytest.raises(ValueError, match="expected seconds >= 0"):
            ef.decompress_file(tmp_path / "a.ecdc", tmp_path / "a.wav", model=causal, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"start: expected less than the 0\.500 s"):
        ef.decompress_file(tmp_path / "a.ecdc", tmp_path / "a.wav", model=causal, start=0.5)
    assert not (tmp_path / "a.wav").exists()


def test_models_that_do_not_fit(folder: Path, tmp_path: Path, causal: ef.Codec) -> None:
    data = causal.compress(recording(1000), entropy="lm")
    other = ef.Codec.load(folder / "tiny_constant.safetensors")
    with pytest.raises(ValueError, match="written by model tiny_reflect, not tiny_constant"):
        other.decompress(data)
    alone = tmp_path / "tiny_reflect.safetensors"
    alone.write_bytes((folder / "tiny_reflect.safetensors").read_bytes())
    with pytest.raises(ValueError, match="the entropy model of tiny_reflect, which is not"):
        ef.Codec.load(alone).decompress(data)
    with pytest.raises(ValueError, match="'lm' needs an entropy model"):
        ef.Codec.load(alone).compress(recording(1000), entropy="lm")
    stranger = tmp_path / "tiny_reflect.entropy.safetensors"
    stranger.write_bytes((folder / "tiny_constant.entropy.safetensors").read_bytes())
    with pytest.raises(ValueError, match="expected the entropy model of tiny_reflect"):
        ef.Codec.load(alone).decompress(data)
    stranger.unlink()
    alone.write_bytes(alone.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="another version of tiny_reflect"):
        ef.Codec.load(alone).decompress(data)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"entropy": "zip"}, "entropy: expected none, static, lm"),
        ({"entropy": None}, "entropy"),
        ({"version": 2}, "version: expected 0 or 1, found 2"),
        ({"version": 0, "metadata": {"a": 1}}, "version 0"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": {"a": object()}}, "metadata"),
    ],
)
def test_bad_arguments(causal: ef.Codec, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        causal.compress(recording(1000), **arguments)  # type: ignore[arg-type]


def test_metadata(causal: ef.Codec, tmp_path: Path, folder: Path) -> None:
    from encodec_fast.info import info

    data = causal.compress(recording(1000), metadata={"title": "walk"}, entropy="static")
    about = info(io.BytesIO(data), folder / "tiny_reflect.safetensors")
    assert about.metadata == {"title": "walk"}
    assert (about.entropy, about.finished, about.damaged) == ("static", True, False)
    assert (about.audio_length, about.chunks, about.duration) == (1000, 1, 0.125)
    cut = info(io.BytesIO(data[:-15]))
    assert (cut.audio_length, cut.chunks, cut.finished) == (None, 1, False)
    assert json.loads(json.dumps(about.__dict__))["model"] == "tiny_reflect"


def test_a_gap_is_cut_into_pieces(causal: ef.Codec) -> None:
    """However much is missing, no single block of silence is large."""
    data = compressed(causal, recording(40000), key=50)
    size = container_size(data)
    end = data.index(b"\xc0\x32")  # chunk 50 of 166
    reader = reader_of(causal, data[:size] + data[end:])
    gaps = [piece.length for piece in reader.pieces()[1] if isinstance(piece, Gap)]
    assert sum(gaps) == 50 * 40 and max(gaps) == 40
    assert reader.lost == [(0, 50 * 40)]
