"""Sources of training recordings: folders, manifests, archives, filters."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import write_corpus

from encodec_fast.training.reading import read_beginning, read_crop, seconds_of
from encodec_fast.training.sources import (
    UNKNOWN,
    Recording,
    SourceSettings,
    find_recordings,
)

RATE = 16000


def noise(seconds: float, channels: int = 1) -> np.ndarray:
    random = np.random.default_rng(int(1000 * seconds) + channels)
    return random.uniform(-0.5, 0.5, (int(seconds * RATE), channels)).astype(np.float32)


def write_archive(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def sound_bytes(samples: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE, format=kind)
    return stream.getvalue()


def test_a_folder_is_searched_to_any_depth(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / ".trash" / "a").mkdir(parents=True)
    for name in ("z.wav", "a/y.FLAC", "a/b/x.ogg", "a/._y.wav", ".trash/a/w.wav"):
        kind = Path(name).suffix[1:].upper()
        soundfile.write(tmp_path / name, noise(0.1), RATE, format=kind)
    (tmp_path / "a" / "notes.txt").write_text("no audio")
    found = find_recordings(SourceSettings(str(tmp_path), kind="speech"))
    names = [Path(r.path).relative_to(tmp_path).as_posix() for r in found]
    assert names == ["a/b/x.ogg", "a/y.FLAC", "z.wav"]
    assert {r.kind for r in found} == {"speech"}
    assert {r.kind for r in find_recordings(SourceSettings(str(tmp_path)))} == {UNKNOWN}

    within = find_recordings(SourceSettings(str(tmp_path / ".trash")))
    assert [Path(r.path).name for r in within] == ["w.wav"]


def test_a_folder_that_cannot_be_read_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed").mkdir()
    soundfile.write(tmp_path / "a.wav", noise(0.1), RATE)
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="closed"):
        find_recordings(SourceSettings(str(tmp_path)))


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_manifests_with_filters(tmp_path: Path, form: str) -> None:
    rows = [
        {"path": "a.wav", "kind": "music", "split": "train", "licence": "CC0-1.0", "peak": 0.5},
        {"path": "b.wav", "kind": "", "split": "train", "licence": "MIT", "seconds": 3},
        {"path": "c.wav", "kind": "music", "split": "train", "licence": "cc-by-sa-3.0"},
        {"path": "d.wav", "kind": "music", "split": "train", "licence": "GPL / other"},
        {"path": "e.wav", "kind": "music", "split": "test", "licence": "CC0-1.0"},
        {"path": "f.wav", "kind": "sound", "split": "dev", "licence": "CC0-1.0", "hz": 8000},
        {"path": "g.wav", "kind": "sound", "split": "dev", "licence": "CC0-1.0", "hz": "12e3"},
    ]
    manifest = tmp_path / f"list.{form}"
    columns = ["path", "kind", "split", "licence", "peak", "seconds", "hz"]
    if form == "csv":
        lines = [",".join(str(row.get(name, "")) for name in columns) for row in rows]
        manifest.write_text("\n".join([",".join(columns), *lines]) + "\n", encoding="utf-8-sig")
    else:
        manifest.write_text("\n\n".join(json.dumps(row) for row in rows))

    def found(**filters: object) -> list[Recording]:
        return find_recordings(SourceSettings(str(manifest), kind="speech", **filters))  # type: ignore[arg-type]

    exclude = {"licence": ("GPL", "CC-BY-SA")}
    chosen = found(where={"split": "train"}, exclude=exclude)
    assert [(r.path, r.kind) for r in chosen] == [
        (str(tmp_path / "a.wav"), "music"),
        (str(tmp_path / "b.wav"), "speech"),
    ]
    assert [r.peak for r in chosen] == [0.5, None]
    assert [r.seconds for r in chosen] == [None, 3.0]
    several = found(where={"split": ("train", "dev"), "kind": "sound"})
    assert [Path(r.path).name for r in several] == ["f.wav", "g.wav"]
    assert [Path(r.path).name for r in found(at_least={"hz": 11500})] == ["g.wav"]
    with pytest.raises(ValueError, match=r"no column 'splt' to filter by, found path, kind"):
        found(where={"splt": "train"})
    with pytest.raises(ValueError, match="leave none of 7 recordings"):
        found(where={"split": "none"})
    with pytest.raises(ValueError, match=r"list\.\w+: line \d: column 'split': expected a number"):
        found(where={"path": "b.wav"}, at_least={"split": 1})


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_archives_are_read_in_place(tmp_path: Path, kind: str) -> None:
    first, second = noise(0.3, 2), noise(0.4, 1)
    suffix = kind.lower()
    write_archive(
        tmp_path / "shard-0.tar",
        {
            f"d/1.mic.{suffix}": sound_bytes(first, kind),
            "d/1.json": json.dumps({"kind": "music", "lang": "de"}).encode(),
            "d/1.txt": b"a text",
        },
    )
    write_archive(tmp_path / "shard-1.tar", {f"d/2.{suffix}": sound_bytes(second, kind)})
    found = find_recordings(SourceSettings(str(tmp_path / "shard-*.tar"), kind="sound"))
    assert [r.kind for r in found] == ["music", "sound"]
    assert found[0].name == f"{tmp_path / 'shard-0.tar'}:d/1.mic.{suffix}"
    for recording, samples, name in zip(found, (first, second), ("1", "2"), strict=True):
        assert seconds_of(recording, True) == len(samples) / RATE
        alone = tmp_path / f"{name}.{suffix}"
        alone.write_bytes(sound_bytes(samples, kind))
        expected, _ = soundfile.read(alone, dtype="float32", always_2d=True)
        assert np.array_equal(read_beginning(recording, RATE, samples.shape[1], 9).T, expected)
        place = Recording(str(alone), str(alone), "")
        crops = [read_crop(r, 8000, 1, 800, 0.7) for r in (recording, place)]
        assert np.array_equal(crops[0].wave, crops[1].wave)
    german = SourceSettings(str(tmp_path / "shard-*.tar"), where={"lang": "de"})
    assert [r.kind for r in find_recordings(german)] == ["music"]


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder, a manifest or an archive"):
        find_recordings(SourceSettings(str(tmp_path / "nowhere")))
    with pytest.raises(FileNotFoundError, match="shard"):
        find_recordings(SourceSettings(str(tmp_path / "shard-*.tar")))
    with pytest.raises(ValueError, match="expected recordings, found none"):
        find_recordings(SourceSettings(str(tmp_path)))
    for name, content, message in (
        ("a.csv", "file,kind\nx.wav,music\n", "line 2: expected a column 'path', found file, kind"),
        ("b.csv", "path,kind\nx.wav,music,more\n", "line 2: expected 2 columns"),
        ("c.csv", "", "expected recordings, found none"),
        ("d.csv", b"path\n\xff\xfe.wav\n", "can't decode"),
        ("a.jsonl", '{"path": "x.wav"}\n{"path": \n', "line 2: expected a JSON object"),
        ("b.jsonl", '["x.wav"]\n', r"line 1: expected a JSON object, found"),
        ("d.jsonl", '{"path": "x.wav"}\n' + "[" * 100_000, "line 2: expected a JSON object"),
        ("e.jsonl", '{"path": "x.wav", "hz": ' + "9" * 9999 + "}", "line 1: expected a JSON"),
        ("c.jsonl", '{"path": 3}\n', "line 1: expected a column 'path'"),
        ("a.tar", "no archive", "expected an uncompressed tar archive"),
        ("a.txt", "x.wav", "expected a folder, .csv, .jsonl, .tar or an audio file"),
    ):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ValueError, match=message) as caught:
            find_recordings(SourceSettings(str(path)))
        assert str(path) in str(caught.value)
    write_archive(tmp_path / "bad.tar", {"a.wav": b"", "a.json": b"{"})
    with pytest.raises(ValueError, match=r"bad\.tar: a\.json: expected JSON"):
        find_recordings(SourceSettings(str(tmp_path / "bad.tar")))
    write_archive(tmp_path / "bad.tar", {"a.wav": b"", "a.json": b"[" * 100_000})
    with pytest.raises(ValueError, match=r"bad\.tar: a\.json: expected JSON"):
        find_recordings(SourceSettings(str(tmp_path / "bad.tar")))
    with pytest.raises(ValueError, match=r"where\.split: expected values, found \(\)"):
        SourceSettings("x", where={"split": ()})


@pytest.mark.parametrize("column", ["seconds", "peak"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-0.5", "1" + 400 * "0"])
def test_lengths_and_levels_that_are_none(tmp_path: Path, column: str, value: str) -> None:
    (tmp_path / "a.csv").write_text(f"path,{column}\na.wav,1\nb.wav,{value}\n")
    numbers = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    line = f'{{"path": "b.wav", "{column}": {numbers.get(value, value)}}}'
    (tmp_path / "a.jsonl").write_text('{"path": "a.wav"}\n' + line)
    for name, number in (("a.csv", 3), ("a.jsonl", 2)):
        expected = rf"{name}: line {number}: column '{column}': expected a (finite )?number"
        with pytest.raises(ValueError, match=expected):
            find_recordings(SourceSettings(str(tmp_path / name)))
    write_archive(tmp_path / "a.tar", {"b.wav": b"", "b.json": line.encode()})
    with pytest.raises(ValueError, match=rf"a\.tar: b\.wav: column '{column}': expected a"):
        find_recordings(SourceSettings(str(tmp_path / "a.tar")))


def test_a_damaged_archive_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    members = {f"{n}.wav": sound_bytes(noise(0.1), "WAV") for n in range(3)}
    write_archive(path, members)
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        start = archive.getmembers()[1].offset
        end = archive.getmembers()[2].offset_data + archive.getmembers()[2].size
    source = SourceSettings(str(path))
    for content in (whole, whole[: -(-end // 512) * 512], whole + bytes(700)):
        path.write_bytes(content)
        assert len(find_recordings(source)) == 3
    damaged = bytearray(whole)
    damaged[start + 150] ^= 1  # its checksum
    zeroed = whole[:start] + bytes(512) + whole[start + 512 :]
    for content in (bytes(damaged), zeroed, whole[: start + 100], whole + whole):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.tar: expected zeros from byte \d+ to the end"):
            find_recordings(source)
    path.write_bytes(whole[: start + 1000])
    with pytest.raises(ValueError, match=r"a\.tar: expected an uncompressed tar .*end of data"):
        find_recordings(source)


def test_the_corpus_of_the_tests_is_chosen_by_its_manifest(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    source = SourceSettings(
        str(tmp_path / "MANIFEST.csv"),
        where={"split": "train"},
        exclude={"licence": ("GPL", "CC-BY-SA")},
    )
    found = {Path(r.path).name: r.kind for r in find_recordings(source)}
    assert found == {"a.flac": "speech", "b.flac": "music", "c.flac": "sound"}
