"""Codes for the entropy model: whose they are, how they are varied, and sequences of them."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import write_corpus
from tiny import tiny_model

import encodec_fast
from encodec_fast.models.export import export_model
from encodec_fast.training.code_data import (
    ENDED,
    CodedRecording,
    CodeSequences,
    TrainingCodes,
    load_codes,
    vary,
)
from encodec_fast.training.lm_settings import CodeDataSettings
from encodec_fast.training.sources import SourceSettings

WHERE = {"split": ("train",)}
EXCLUDE = {"licence": ("GPL", "CC-BY-SA")}


@pytest.fixture(scope="module")
def codec() -> encodec_fast.Codec:
    return encodec_fast.Codec.load("nano_24khz")


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    folder = tmp_path / "audio"
    folder.mkdir()
    write_corpus(folder, seconds=0.5)
    return folder


def load(codec: encodec_fast.Codec, audio: Path, copies: int) -> TrainingCodes:
    source = SourceSettings(str(audio / "MANIFEST.csv"), None, WHERE, EXCLUDE)
    settings = CodeDataSettings((source,), copies=copies, cache=str(audio.parent / "run"))
    return load_codes(settings, codec, 1)


def test_codes_of_training_recordings_alone(codec: encodec_fast.Codec, audio: Path) -> None:
    """Three recordings may be used; the last original is for validation, and has no copies."""
    codes = load(codec, audio, copies=2)
    (held,) = codes.held_out
    assert held.name.endswith("c.flac") and held.segments[0].shape == (16, 38)
    assert held.seconds == 0.5
    assert [found.kind for found in codes.plain] == ["speech", "music"]
    assert [found.kind for found in codes.varied] == ["speech", "music"] * 2
    plain, *varied = (found.segments[0][:, :20] for found in codes.plain[1:] + codes.varied[1::2])
    assert all(part.dtype == np.uint16 and part.max() < 1024 for part in varied)
    assert not any(np.array_equal(plain, part) for part in varied)
    wave, _ = soundfile.read(audio / "b.flac", dtype="float32", always_2d=True)
    expected = codec.encode(wave.mean(axis=1)[None], None, sample_rate=16000).codes[0]
    assert (codes.plain[1].segments[0] == expected).mean() > 0.95


def test_codes_are_made_once_and_anew_for_other_recordings(
    codec: encodec_fast.Codec, audio: Path
) -> None:
    first = load(codec, audio, copies=1)
    folder = audio.parent / "run"
    times = {path: path.stat().st_mtime_ns for path in folder.glob("codes_*.npz")}
    again = load(codec, audio, copies=1)
    assert len(times) == 3  # plain, varied, held out
    assert times == {path: path.stat().st_mtime_ns for path in folder.glob("codes_*.npz")}
    for one, other in zip(first.plain + first.varied, again.plain + again.varied, strict=True):
        assert one.name == other.name and np.array_equal(one.segments[0], other.segments[0])
    wave, rate = soundfile.read(audio / "a.flac")
    soundfile.write(audio / "a.flac", wave[:4000], rate)
    assert load(codec, audio, copies=0).plain[0].seconds == 0.25


def test_recordings_that_cannot_be_used_are_skipped_and_listed(
    codec: encodec_fast.Codec, audio: Path
) -> None:
    (audio / "empty.wav").write_bytes(b"")
    soundfile.write(audio / "silent.wav", np.zeros(8000), 16000)
    soundfile.write(audio / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    with (audio / "MANIFEST.csv").open("r+") as manifest:
        lines = manifest.readlines()
        bad = [f"{name}.wav,train,speech,CC0-1.0\n" for name in ("empty", "silent", "nan", "gone")]
        manifest.seek(0)
        manifest.writelines(lines[:1] + bad + lines[1:])
    codes = load(codec, audio, copies=1)
    assert [Path(name).name for name, _ in codes.skipped] == [
        "empty.wav", "silent.wav", "nan.wav", "gone.wav",
    ]  # fmt: skip
    reasons = " ".join(reason for _, reason in codes.skipped)
    assert "silent" in reasons and "sample 0 of channel 0 is nan" in reasons
    assert [Path(found.name).name for found in codes.plain] == ["a.flac", "b.flac"]
    assert len(codes.varied) == 2


def test_a_full_disk_is_no_fault_of_a_recording(
    codec: encodec_fast.Codec, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, **arrays: object) -> None:
        path.write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        load(codec, audio, copies=0)
    assert not list((audio.parent / "run").iterdir())


def test_a_damaged_file_of_codes_is_named(codec: encodec_fast.Codec, audio: Path) -> None:
    load(codec, audio, copies=0)
    for path in (audio.parent / "run").glob("codes_*.npz"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=r"codes_nano.*\.npz: expected the codes of \d rec"):
            load(codec, audio, copies=0)
        with np.load(io.BytesIO(content)) as stored:
            np.savez(path, **{**stored, "counts": stored["counts"] + 1})
        with pytest.raises(ValueError, match=r"found other numbers of them: remove it"):
            load(codec, audio, copies=0)
        path.write_bytes(content)


def test_too_many_open_files_are_no_fault_of_a_recording(
    codec: encodec_fast.Codec, audio: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def refuse(path: Path, *mode: str, **more: str) -> object:
        if path.name == "b.flac":
            raise OSError(errno.ENFILE, "Too many open files in system", str(path))
        return opened(path, *mode, **more)  # type: ignore[call-overload]

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Too many"):
        patched.setattr(Path, "open", refuse)
        load(codec, audio, copies=0)
    assert not load(codec, audio, copies=0).skipped


def test_one_original_is_too_few(codec: encodec_fast.Codec, audio: Path) -> None:
    lines = (audio / "MANIFEST.csv").read_text().splitlines()
    (audio / "MANIFEST.csv").write_text("\n".join(lines[:2]) + "\n")
    with pytest.raises(ValueError, match=r"valid: expected several originals.*a\.flac"):
        load(codec, audio, copies=0)
    one = SourceSettings(str(audio / "a.flac"))
    other = SourceSettings(str(audio / "b.flac"))
    settings = CodeDataSettings((one,), (other,), copies=0, cache=str(audio.parent / "run"))
    codes = load_codes(settings, codec, 1)
    assert codes.plain[0].name.endswith("a.flac") and codes.held_out[0].name.endswith("b.flac")


def test_segments_are_sequences_of_their_own(audio: Path, tmp_path: Path) -> None:
    export_model(tiny_model("encodec_48khz"), tmp_path / "segments.safetensors")
    codec = encodec_fast.Codec.load(tmp_path / "segments.safetensors")
    write_corpus(audio, seconds=2.5)
    codes = load(codec, audio, copies=1)
    wave, _ = soundfile.read(audio / "a.flac", dtype="float32", always_2d=True)
    expected = codec.encode(wave.T, None, sample_rate=16000).codes
    found = codes.plain[0].segments
    assert [part.shape for part in found] == [part.shape for part in expected]
    assert len(found) == 3 and found[0].shape == (16, 150)
    assert all((a == b).mean() > 0.9 for a, b in zip(found, expected, strict=True))
    batch, sources = CodeSequences(codes.plain, 750, seed=1).batch(4, 0)
    assert batch.shape == (4, 16, 150) and all(source.endswith("@0") for source in sources)


def test_variations_differ_and_never_clip() -> None:
    random = np.random.default_rng(3)
    loud = np.stack([np.sin(np.arange(24000) / 20), np.cos(np.arange(24000) / 9)])
    loud = loud.astype(np.float32)
    others = [None, loud[:, :5000]] * 10
    varied = [vary(loud, other, 320, random) for other in others]
    lengths = {wave.shape[1] for wave in varied}
    assert len(lengths) == 20 and min(lengths) > 0.9 * 24000 - 321 and max(lengths) < 24000 / 0.9
    peaks = np.array([np.abs(wave).max() for wave in varied])
    assert peaks.max() <= 1 and peaks.min() < 0.5
    assert all(wave.dtype == np.float32 and wave.shape[0] == 2 for wave in varied)
    # The slow channel has the smaller differences; half of the time it is the second one.
    first = [np.diff(wave[0]).std() < np.diff(wave[1]).std() for wave in varied]
    assert 3 < sum(first) < 17


def named(kind: str, *codes: np.ndarray) -> list[CodedRecording]:
    return [CodedRecording(f"{kind} {i}", kind, [part], 1.0) for i, part in enumerate(codes)]


def test_sequences_are_parts_of_recordings() -> None:
    """Every kind of sound as often as any other, however little of it there is."""
    long = np.stack([np.arange(50), np.arange(50) + 100]).astype(np.uint16)
    codes = named("speech", *[long] * 9) + named("music", long[:, :30] + 500)
    found, sources = CodeSequences(codes, 20, seed=1).batch(400, 0)
    batch = found.numpy()
    assert batch.shape == (400, 2, 20)
    assert (np.diff(batch, axis=2) == 1).all() and (batch[:, 1] - batch[:, 0] == 100).all()
    starts = batch[:, 0, 0]
    assert 0.4 < (starts >= 500).mean() < 0.6
    speech = starts[starts < 500]
    assert speech.min() == 0 and speech.max() == 30
    assert (speech == 0).mean() > 0.2
    for source, start in zip(sources, starts, strict=True):
        kind, at = source.split("@")
        assert int(at) == start % 500 and kind.startswith("music" if start >= 500 else "speech")


def test_batches_are_functions_of_the_seed_and_their_number() -> None:
    codes = named("speech", np.arange(2000, dtype=np.uint16).reshape(2, 1000))
    one, other = CodeSequences(codes, 20, seed=1), CodeSequences(codes, 20, seed=2)
    first = one.batch(8, 3)[0]
    assert not (one.batch(8, 4)[0] == first).all() and not (other.batch(8, 3)[0] == first).all()
    assert (one.batch(8, 3)[0] == first).all()


def test_short_recordings_are_filled_up() -> None:
    codes = named("music", np.zeros((2, 5), np.uint16), np.zeros((2, 0), np.uint16))
    long = named("speech", np.zeros((2, 8), np.uint16))
    batch, sources = CodeSequences(codes + long, 8, seed=1).batch(8, 0)
    for sequence, source in zip(batch.tolist(), sources, strict=True):
        filled = [ENDED] * 3 if source.startswith("music") else [0] * 3
        assert sequence == [[0] * 5 + filled] * 2
    with pytest.raises(ValueError, match="at least one recording with frames of each kind"):
        CodeSequences(codes[:1] + named("speech", np.zeros((2, 0), np.uint16)), 8, seed=1)
    with pytest.raises(ValueError, match="at least one recording"):
        CodeSequences([], 8, seed=1)
