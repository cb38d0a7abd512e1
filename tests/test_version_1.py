"""Version 1 files of whole codecs: entropy modes, chunks, ranges, and what damage costs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from programs import HOP, tiny_program
from version_1 import (
    CHUNK,
    ENTROPIES,
    KINDS,
    RATE,
    codes_of,
    compressed,
    container_size,
    reader_of,
    recording,
)

import encodec_fast as ef
from encodec_fast import info
from encodec_fast.segments import Gap, Piece


@pytest.fixture(scope="module", params=KINDS)
def codec(request: pytest.FixtureRequest, tiny_entropies: Path) -> ef.Codec:
    return ef.Codec.load(tiny_entropies / f"tiny_{request.param}.safetensors")


@pytest.fixture(scope="module")
def causal(tiny_entropies: Path) -> ef.Codec:
    return ef.Codec.load(tiny_entropies / "tiny_reflect.safetensors")


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


def test_entropy_coding_saves(causal: ef.Codec, tiny_entropies: Path) -> None:
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
    tiny_entropies: Path, tmp_path: Path, entropy: str
) -> None:
    np.save(tmp_path / "wav.npy", recording(9000))
    program = (
        "import sys, numpy as np, encodec_fast as ef\n"
        "for kind in ('reflect', 'segments'):\n"
        f"    path = {str(tiny_entropies)!r} + f'/tiny_{{kind}}.safetensors'\n"
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


def test_models_that_do_not_fit(tiny_entropies: Path, tmp_path: Path, causal: ef.Codec) -> None:
    data = causal.compress(recording(1000), entropy="lm")
    other = ef.Codec.load(tiny_entropies / "tiny_constant.safetensors")
    with pytest.raises(ValueError, match="written by model tiny_reflect, not tiny_constant"):
        other.decompress(data)
    alone = tmp_path / "tiny_reflect.safetensors"
    alone.write_bytes((tiny_entropies / "tiny_reflect.safetensors").read_bytes())
    with pytest.raises(ValueError, match="the entropy model of tiny_reflect, which is not"):
        ef.Codec.load(alone).decompress(data)
    with pytest.raises(ValueError, match="'lm' needs an entropy model"):
        ef.Codec.load(alone).compress(recording(1000), entropy="lm")
    stranger = tmp_path / "tiny_reflect.entropy.safetensors"
    stranger.write_bytes((tiny_entropies / "tiny_constant.entropy.safetensors").read_bytes())
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
        causal.compress(recording(1000), **arguments)  # type: ignore[arg-type]  # on purpose


def test_metadata(causal: ef.Codec, tmp_path: Path, tiny_entropies: Path) -> None:
    from encodec_fast.info import info

    data = causal.compress(recording(1000), metadata={"title": "walk"}, entropy="static")
    about = info(io.BytesIO(data), tiny_entropies / "tiny_reflect.safetensors")
    assert about.metadata == {"title": "walk"}
    assert (about.entropy, about.finished, about.damaged) == ("static", True, False)
    assert (about.audio_length, about.chunks, about.duration) == (1000, 1, 0.125)
    cut = info(io.BytesIO(data[:-5]))
    assert (cut.audio_length, cut.chunks, cut.finished) == (None, 1, False)
    assert json.loads(json.dumps(about.__dict__))["model"] == "tiny_reflect"


def test_hours_of_silence_are_not_believed(causal: ef.Codec) -> None:
    """Neither between chunks nor at the end, with an index or without."""
    hour = 3600 * RATE // HOP
    # Chunks of 10 s: one with the claim of two hours, and some with half an hour between them.
    for numbers, total in (([0], 720), ([0, 180, 360, 540], 541)):
        buffer = io.BytesIO()
        writer = causal.piece_writer(2)(buffer)._chunks
        frames = writer._header.chunk_frames
        for number in numbers:
            writer._number = number
            writer.write(bytes(-(-frames * 2 * 5 // 8)), frames)
        writer._number = total
        writer._index[:0] = bytes(total - len(numbers))  # key intervals of no bytes
        writer.finish(total * frames * HOP)
        for live in (False, True):
            reader = reader_of(causal, buffer.getvalue(), live)
            gaps = [piece.length for piece in reader.pieces()[1] if isinstance(piece, Gap)]
            assert sum(gaps) <= hour + len(numbers) * frames
            assert reader.lost[-1][1] is None


def test_a_gap_is_cut_into_pieces(causal: ef.Codec) -> None:
    """However much is missing, no single block of silence is large."""
    data = compressed(causal, recording(40000), key=50)
    size = container_size(data)
    end = data.index(b"\xc0\x32")  # chunk 50 of 166
    reader = reader_of(causal, data[:size] + data[end:])
    gaps = [piece.length for piece in reader.pieces()[1] if isinstance(piece, Gap)]
    assert sum(gaps) == 50 * 40 and max(gaps) == 40
    assert reader.lost == [(0, 50 * 40)]


@pytest.mark.parametrize("lost", [0, 1, 5])
def test_a_lost_segment_is_silent(tiny_entropies: Path, lost: int) -> None:
    """Also the first one, where a segment is no whole number of frames (100 samples, hop 6)."""
    codec = ef.Codec.load(tiny_entropies / "tiny_segments.safetensors")
    data = bytearray(codec.compress(recording(1000)))
    whole = codec.decompress(bytes(data))
    at = container_size(bytes(data))
    for _ in range(lost):
        at += 7 + data[at + 2]
    data[at + 9] ^= 1
    with pytest.warns(ef.DamageWarning):
        wav = codec.decompress(bytes(data))
    assert wav.shape == whole.shape
    assert (wav[:, 90 * lost + 12 : 90 * lost + 90] == 0).all()
    assert np.array_equal(wav[:, 90 * lost + 102 :], whole[:, 90 * lost + 102 :])


@pytest.mark.parametrize("lost", [0, 3, -1])
def test_info_tells_a_missing_chunk(tiny_entropies: Path, lost: int) -> None:
    codec = ef.Codec.load(tiny_entropies / "tiny_reflect.safetensors")
    data = compressed(codec, recording(6 * 40 * 10))
    first = container_size(data)
    size = 7 + data[first + 2]  # of every chunk: full ones, with numbers below 128
    at = first + (lost % 10) * size
    rest = io.BytesIO(data[:at] + data[at + size :])
    found = info.info(rest, tiny_entropies / "tiny_reflect.safetensors")
    assert (found.damaged, found.finished, found.chunks) == (True, True, 9)


def test_pieces_of_long_chunks_are_short(tiny_entropies: Path) -> None:
    codec = ef.Codec.load(tiny_entropies / "tiny_reflect.safetensors")
    data = compressed(codec, recording(6 * 7001), chunk=6 * 2500 / RATE)
    for changed in (data, data[: container_size(data)] + data[2 * len(data) // 3 :]):
        lengths = [
            piece.length if isinstance(piece, Gap) else piece.codes.shape[1]
            for piece in reader_of(codec, changed).pieces()[1]
        ]
        assert max(lengths) == 1000
        assert sum(lengths) == 7001


def test_codes_beyond_the_codebook_are_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("programs.ENTRIES", 20)
    codec = ef.Codec.load(tiny_program(tmp_path, "reflect"))
    buffer = io.BytesIO()
    writer = codec.piece_writer(1, chunk=CHUNK)(buffer)
    for number in range(3):
        codes = np.full((1, 40), 31 if number == 1 else 3, np.uint16)
        writer.write(Piece(codes, None, number == 0))
    writer.finish(3 * 40 * HOP)
    with pytest.warns(ef.DamageWarning):
        wav = codec.decompress(buffer.getvalue())
    assert wav.shape == (1, 720)
    assert (wav[:, 240:480] == 0).all()


@pytest.mark.parametrize("entropy", ["static", "lm"])
def test_more_codebooks_than_the_entropy_model_has(tiny_entropies: Path, entropy: str) -> None:
    codec = ef.Codec.load(tiny_entropies / "tiny_reflect.safetensors")
    assert codec.entropy_model is not None
    codec.entropy_model = replace(codec.entropy_model, n_codebooks=1)
    with pytest.raises(ValueError, match="entropy model of tiny_reflect has only 1 codebooks"):
        codec.piece_writer(2, entropy)
