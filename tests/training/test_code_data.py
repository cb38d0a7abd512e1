"""Codes for the entropy model: whose they are, how they are varied, and sequences of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recordings import write_corpus

import encodec_fast
from encodec_fast.training.code_data import ENDED, CodeSequences, held_out, load_codes, vary


@pytest.fixture(scope="module")
def codec() -> encodec_fast.Codec:
    return encodec_fast.Codec.load("nano_24khz")


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    write_corpus(folder, seconds=0.5)
    return folder


def test_codes_of_training_recordings_alone(
    codec: encodec_fast.Codec, audio: Path, tmp_path: Path
) -> None:
    """Three recordings may be used; the last original is for validation, and has no copies."""
    codes = load_codes(audio, tmp_path, codec, copies=2, seed=1)
    assert [part.shape for part in codes.held_out] == [(16, 38)]
    assert {kind: len(parts) for kind, parts in codes.plain.items()} == {"speech": 1, "music": 1}
    assert {kind: len(parts) for kind, parts in codes.varied.items()} == {"speech": 2, "music": 2}
    (plain,), varied = codes.plain["music"], codes.varied["music"]
    assert all(part.dtype == np.uint16 and part.max() < 1024 for part in varied)
    assert not any(np.array_equal(plain[:, :20], part[:, :20]) for part in varied)


def test_codes_are_made_once(codec: encodec_fast.Codec, audio: Path, tmp_path: Path) -> None:
    first = load_codes(audio, tmp_path, codec, copies=1, seed=1)
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("codes_*.npz"))]
    again = load_codes(audio, tmp_path, codec, copies=1, seed=1)
    assert times == [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("codes_*.npz"))]
    assert np.array_equal(first.plain["music"], again.plain["music"])
    assert np.array_equal(first.varied["music"], again.varied["music"])


def test_codes_of_other_recordings_are_refused(
    codec: encodec_fast.Codec, audio: Path, tmp_path: Path
) -> None:
    load_codes(audio, tmp_path, codec, copies=0, seed=1)
    lines = (audio / "MANIFEST.csv").read_text().splitlines()
    (audio / "MANIFEST.csv").write_text("\n".join(lines[:3]) + "\n")
    with pytest.raises(ValueError, match="expected 2 recordings, found 3"):
        load_codes(audio, tmp_path, codec, copies=0, seed=1)
    with pytest.raises(ValueError, match="copies"):
        load_codes(audio, tmp_path, codec, copies=-1, seed=1)


def test_one_original_is_too_few(codec: encodec_fast.Codec, audio: Path, tmp_path: Path) -> None:
    lines = (audio / "MANIFEST.csv").read_text().splitlines()
    (audio / "MANIFEST.csv").write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(ValueError, match="two originals"):
        load_codes(audio, tmp_path, codec, copies=0, seed=1)


def test_an_original_is_held_out_as_a_whole() -> None:
    paths = [
        Path(f"{letter}_{part}.ogg") for letter in "abcdefghijklmnopqrstuvwxyz" for part in (0, 1)
    ]
    held = held_out(paths)
    assert held[::2] == held[1::2]
    assert [path.stem for path, out in zip(paths, held, strict=True) if out] == [
        "i_0",
        "i_1",
        "y_0",
        "y_1",
    ]


def test_variations_differ_and_never_clip() -> None:
    random = np.random.default_rng(3)
    loud = (32767 * np.sin(np.arange(24000) / 20)).astype(np.int16)
    varied = [vary(loud, [loud[:5000]], 320, random) for _ in range(20)]
    lengths = {len(wave) for wave in varied}
    assert len(lengths) == 20 and min(lengths) > 0.9 * 24000 - 321 and max(lengths) < 24000 / 0.9
    peaks = np.array([np.abs(wave.astype(np.int32)).max() for wave in varied])
    assert peaks.max() <= 32767 and peaks.min() < 16000


def test_sequences_are_parts_of_recordings() -> None:
    """Every kind of sound as often as any other, however little of it there is."""
    long = np.stack([np.arange(50), np.arange(50) + 100]).astype(np.uint16)
    codes = {"speech": [long] * 9, "music": [long[:, :30] + 500]}
    batch = CodeSequences(codes, 20, seed=1).batch(400).numpy()
    assert batch.shape == (400, 2, 20)
    assert (np.diff(batch, axis=2) == 1).all() and (batch[:, 1] - batch[:, 0] == 100).all()
    starts = batch[:, 0, 0]
    assert 0.4 < (starts >= 500).mean() < 0.6
    speech = starts[starts < 500]
    assert speech.min() == 0 and speech.max() == 30
    assert (speech == 0).mean() > 0.2


def test_short_recordings_are_filled_up() -> None:
    codes = {"music": [np.zeros((2, 5), np.uint16), np.zeros((2, 0), np.uint16)]}
    batch = CodeSequences(codes, 8, seed=1).batch(3)
    assert batch[0].tolist() == [[0] * 5 + [ENDED] * 3] * 2
    codes["speech"] = codes["music"][1:]
    with pytest.raises(ValueError, match="at least one recording with frames of each kind"):
        CodeSequences(codes, 8, seed=1)
    with pytest.raises(ValueError, match="at least one recording"):
        CodeSequences({}, 8, seed=1)
