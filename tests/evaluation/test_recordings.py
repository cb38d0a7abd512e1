"""Which recordings are evaluated, and which are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from signals import synthetic_clip

from encodec_fast.evaluation.recordings import Setting, find_recordings, read_recording

MONO = Setting(24000, 1)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_manifest(tmp_path: Path) -> None:
    rows = ["split,path,kind", "test,b.wav,speech", "train,c.wav,speech", "test,a.wav,speech"]
    rows += ["test,d.wav,birds", "test,e.wav,music", "test,f.wav,"]
    (tmp_path / "MANIFEST.csv").write_text("\n".join(rows))
    found = find_recordings(tmp_path, kind="sound")
    names = [(recording.name, recording.kind) for recording in found]
    assert names == [
        ("a.wav", "speech"),
        ("b.wav", "speech"),
        ("e.wav", "music"),
        ("f.wav", "sound"),
        ("d.wav", "birds"),
    ]
    assert found[0].path == tmp_path / "a.wav"
    assert find_recordings(tmp_path / "MANIFEST.csv", limit=1)[1].name == "e.wav"
    assert [r.name for r in find_recordings(tmp_path, "train")] == ["c.wav"]
    with pytest.raises(ValueError, match=r"split: .*'valid' \(it has test, train\)"):
        find_recordings(tmp_path, "valid")


def test_a_manifest_of_paths_alone(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\nx.wav\n")
    assert [r.kind for r in find_recordings(tmp_path / "list.csv")] == ["unsorted"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "column path"),
        (b"file,kind\na,b\n", "column path"),
        (b"path\n\xff\xfe\n", "no .csv file"),
        (b"path,kind\n,speech\n", "without a path"),
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "MANIFEST.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        find_recordings(tmp_path)


def test_json_lines(tmp_path: Path) -> None:
    rows = ['{"path": "b.wav", "kind": "music", "split": "test", "more": [1]}', ""]
    rows += ['{"path": "sub/a.wav", "split": "test"}', '{"path": "c.wav", "split": "train"}']
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    assert find_recordings(tmp_path / "list.jsonl", kind="speech") == [
        (tmp_path / "sub/a.wav", "sub/a.wav", "speech"),
        (tmp_path / "b.wav", "b.wav", "music"),
    ]
    with pytest.raises(ValueError, match=r"split: .*'valid' \(it has test, train\)"):
        find_recordings(tmp_path / "list.jsonl", "valid")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"path": "a"}\n{"path"', r"list.jsonl: no .jsonl file: line 2: expected a JSON object"),
        (b"path,kind\na,speech", "line 1: expected a JSON object"),
        (b'["a.wav"]', r"line 1: expected a JSON object, found \[\"a.wav\"\]"),
        (b"\xff\xfe", "no .jsonl file: 'utf-8'"),
        (b'{"file": "a"}', "column path"),
        (b'{"path": "a"}\n{"path": 3}', "without a path"),
        (b'{"path": "a"}\n{"file": "a"}', "without a path"),
        (b"", "column path"),
    ],
)
def test_json_lines_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        find_recordings(tmp_path / "list.jsonl")


def test_one_recording(tmp_path: Path) -> None:
    touch(tmp_path, "a.FLAC", "b.txt", "c.tar")
    path = tmp_path / "a.FLAC"
    assert find_recordings(path) == [(path, "a.FLAC", "unsorted")]
    assert find_recordings(path, kind="speech") == [(path, "a.FLAC", "speech")]
    for name in ("b.txt", "c.tar"):
        with pytest.raises(ValueError, match=rf"data: expected a folder, .*, found .*{name}"):
            find_recordings(tmp_path / name)


def test_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "speech/x/a.flac", "Music/b.OGG", "other/c.wav", "d.mp3", "notes.txt", "e.raw")
    found = {(r.name, r.kind) for r in find_recordings(tmp_path)}
    assert found == {
        ("speech/x/a.flac", "speech"),
        ("Music/b.OGG", "music"),
        ("other/c.wav", "unsorted"),
        ("d.mp3", "unsorted"),
    }
    assert {r.kind for r in find_recordings(tmp_path, kind="speech")} == {"speech", "music"}


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no audio files"):
        find_recordings(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder or file at .*none"):
        find_recordings(tmp_path / "none")
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        find_recordings(tmp_path, limit=0)


def test_reading_stops_where_it_should(tmp_path: Path) -> None:
    x = synthetic_clip(0, 24000, 1)
    soundfile.write(tmp_path / "a.wav", x.T, 24000, subtype="FLOAT")
    assert np.array_equal(read_recording(tmp_path / "a.wav", MONO, 60), x)
    assert np.array_equal(read_recording(tmp_path / "a.wav", MONO, 1.5), x[:, :36000])
    assert np.array_equal(read_recording(tmp_path / "a.wav", MONO, 3), x)
    stereo = read_recording(tmp_path / "a.wav", Setting(48000, 2), 0.5)
    assert stereo.shape == (2, 24000) and np.array_equal(stereo[0], stereo[1])


def test_recordings_that_cannot_be_evaluated(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with pytest.raises(FileNotFoundError):
        read_recording(path, MONO, 1)
    path.write_bytes(b"not audio at all")
    with pytest.raises(OSError, match=r"a\.wav"):
        read_recording(path, MONO, 1)
    for samples, message in (([], "no audio"), ([0.0] * 99, "silent"), ([np.nan] * 9, "nan")):
        soundfile.write(path, np.array(samples), 24000, subtype="FLOAT")
        with pytest.raises(ValueError, match=message):
            read_recording(path, MONO, 1)
