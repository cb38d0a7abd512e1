"""What a run is made of: folders, patterns, manifests, archives, tables; keys and their order."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from data_sets import RECORDINGS, sound_bytes, write_corpus, write_tar

from encodec_fast.batch import rows as rows_module
from encodec_fast.batch.items import (
    FileLocation,
    PartLocation,
    read_extra,
)
from encodec_fast.batch.sources import list_items

WAV = sound_bytes("x.wav", 8000, 1, 0.1)


def keys(*sources: Any, **options: Any) -> list[str]:
    return [item.key for item in list_items(list(sources), **options)]


def content(item: Any) -> bytes:
    with item.location.open() as source:
        return source.read_bytes() if isinstance(source, Path) else source.read()


def test_a_folder(tmp_path: Path) -> None:
    names = write_corpus(tmp_path)
    (tmp_path / "notes.doc").write_text("no audio")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.wav").write_bytes(WAV)
    (tmp_path / "._e.flac").write_bytes(b"of another system")
    items = list_items(tmp_path)
    assert [item.key for item in items] == names
    assert "speech/a.wav" in names and "speech/a.flac" in names  # two keys
    for item in items:
        assert item.source == str(tmp_path / item.key)
        assert item.size == (tmp_path / item.key).stat().st_size
        assert content(item) == (tmp_path / item.key).read_bytes()


def test_listing_opens_no_audio(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    (tmp_path / "gone.flac").symlink_to(tmp_path / "nowhere")
    assert keys(tmp_path) == ["broken.wav", "gone.flac"]


def test_files_and_patterns(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    assert keys(tmp_path / "e.flac", str(tmp_path / "speech" / "b.mp3")) == ["b.mp3", "e.flac"]
    assert keys(f"{tmp_path}/*/*.wav") == ["speech/a.wav"]
    assert keys(f"{tmp_path}/**/*.wav") == ["f.wav", "music/deep/d.wav", "speech/a.wav"]
    assert keys(f"{tmp_path}/m*") == ["music/c.ogg", "music/deep/d.wav"]  # a folder
    (tmp_path / "odd[1].wav").write_bytes(WAV)
    assert keys(tmp_path / "odd[1].wav") == ["odd[1].wav"]


def test_manifests_and_lists(tmp_path: Path) -> None:
    write_corpus(tmp_path / "audio")
    table = tmp_path / "list.csv"
    table.write_text("path,key,kind\naudio/e.flac,first,x\naudio/f.wav,,y\n")
    assert keys(table) == ["audio/f.wav", "first"]
    lines = tmp_path / "list.jsonl"
    rows = [{"path": "audio/e.flac"}, {"path": str(tmp_path / "audio" / "f.wav"), "key": 7}]
    lines.write_text("\n".join(map(json.dumps, rows)))
    assert keys(lines) == ["7", "audio/e.flac"]
    names = tmp_path / "list.txt"
    names.write_text("audio/e.flac\r\n\n../outside.wav\n" + str(tmp_path / "audio" / "f.wav\n"))
    found = {item.key: item.location for item in list_items(names)}
    # A key leads nowhere, a location does.
    inside = str(tmp_path).lstrip("/") + "/audio/f.wav"
    assert found.keys() == {"audio/e.flac", "outside.wav", inside}
    assert found["outside.wav"] == FileLocation(f"{tmp_path}/../outside.wav")
    table.write_text("file\nx.wav\n")
    with pytest.raises(ValueError, match=r"list\.csv: line 2: expected a column 'path'"):
        keys(table)
    lines.write_text('{"path": "x.wav", "key": 0}\n{"path": "y.wav", "key": null}')
    assert keys(lines) == ["0", "y.wav"]
    for key in ("[]", "true", "1.5"):
        lines.write_text(f'{{"path": "a.wav"}}\n{{"path": "x.wav", "key": {key}}}')
        with pytest.raises(ValueError, match=r"list\.jsonl: line 2: expected a key .*, found "):
            keys(lines)
    names.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"list\.txt: .*utf-8"):
        keys(names)


def rows() -> list[dict[str, Any]]:
    return [{"bytes": WAV, "path": f"clip{n}.wav"} for n in range(5)]


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra tokenize")
    import pyarrow.parquet as pq

    (tmp_path / "local.wav").write_bytes(WAV)
    cells = [*rows()[:4], {"bytes": None, "path": "local.wav"}]
    table = pa.table({"audio": cells, "text": list("abcde"), "raw": [WAV] * 5, "n": range(5)})
    pq.write_table(table, tmp_path / "part.parquet", row_group_size=2)
    items = list_items(tmp_path / "part.parquet")
    assert [item.key for item in items] == [f"part.parquet/0000000{n}" for n in range(5)]
    assert items[3].source == f"{tmp_path}/part.parquet: row 3 (clip3.wav)"
    assert [content(item) for item in pickle.loads(pickle.dumps(items))] == [WAV] * 5
    by_bytes = list_items(tmp_path / "part.parquet", "raw")
    assert [content(item) for item in by_bytes] == [WAV] * 5
    (tmp_path / "local.wav").unlink()  # a folder without audio files: its tables
    assert keys(tmp_path) == [item.key for item in items]
    with pytest.raises(ValueError, match=r"no column 'sound' .*found audio, text, raw, n"):
        keys(tmp_path / "part.parquet", audio_column="sound")
    with pytest.raises(ValueError, match=r"expected audio .* found int"):
        content(list_items(tmp_path / "part.parquet", "n")[0])
    (tmp_path / "part.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"part\.parquet: expected a parquet file"):
        keys(tmp_path / "part.parquet")


def test_threads_read_a_row_group_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pa = pytest.importorskip("pyarrow", reason="needs the extra tokenize")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"audio": [WAV] * 8}), tmp_path / "a.parquet")
    items = list_items(tmp_path / "a.parquet")
    original = rows_module._parquet_file
    readings = []

    def slow(*arguments: Any) -> Any:
        readings.append(arguments)
        time.sleep(0.05)
        return original(*arguments)

    monkeypatch.setattr(rows_module, "_parquet_file", slow)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(content, items)) == [WAV] * 8
    assert len(readings) == 1


def test_hugging_face_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs Hugging Face's datasets")
    data = datasets.Dataset.from_dict({"audio": rows(), "text": list("abcde")})
    data = data.cast_column("audio", datasets.Audio())  # which would decode
    items = list_items(data)
    assert [item.key for item in items] == [f"0000000{n}" for n in range(5)]
    assert [content(item) for item in pickle.loads(pickle.dumps(items))] == [WAV] * 5
    assert len(list_items(data.select([3, 1]))) == 2
    both = datasets.DatasetDict({"train": data, "test": data.select([0])})
    both.save_to_disk(tmp_path / "saved")
    saved = list_items(tmp_path / "saved")
    assert [item.key for item in saved] == [
        "test/00000000", *(f"train/0000000{n}" for n in range(5))
    ]  # fmt: skip
    assert saved[1].source.endswith("row 0 (clip0.wav)")
    assert [content(item) for item in pickle.loads(pickle.dumps(saved))] == [WAV] * 6
    assert len(list_items(tmp_path / "saved" / "train")) == 5
    with pytest.raises(ValueError, match="no column 'sound'"):
        list_items(data, "sound")
    with pytest.raises(ValueError, match="found IterableDataset"):
        list_items([data.to_iterable_dataset()])
    (tmp_path / "saved" / "train" / "state.json").write_text("{}")
    with pytest.raises(ValueError, match="not a data set of save_to_disk"):
        list_items(tmp_path / "saved")


def test_urls(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs the extra tokenize")
    memory = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}"
    tar = write_tar(tmp_path / "a.tar", {"1.wav": WAV, "1.txt": b"said"}).read_bytes()
    files = {
        "set/a.wav": WAV,
        "set/deep/b.wav": WAV,
        "set/.hidden/c.wav": WAV,
        "a.tar": tar,
        "list.csv": b"path\nset/a.wav\n",
    }
    for name, data in files.items():
        memory.pipe_file(f"{root}/{name}", data)
    url = f"memory:/{root}"
    assert keys(f"{url}/set") == ["a.wav", "deep/b.wav"]
    assert keys(f"{url}/set/*/*.wav") == ["deep/b.wav"]
    assert keys(f"{url}/list.csv", f"{url}/a.tar") == ["a.tar/1", "set/a.wav"]
    items = list_items([f"{url}/set", f"{url}/a.tar", f"{url}/list.csv"])
    assert [content(item) for item in items] == [WAV] * 4
    assert {item.size for item in items} == {len(WAV)}
    assert read_extra(items[0]) == {"txt": b"said"}
    with pytest.raises(FileNotFoundError, match="nothing of that name"):
        keys(f"{url}/none")


@pytest.mark.parametrize("module", ["fsspec", "pyarrow"])
def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, module, None)
    source = "memory://x" if module == "fsspec" else tmp_path / "a.parquet"
    with pytest.raises(ValueError, match=rf"encodec-fast\[tokenize\].*{module}"):
        keys(source)


def test_a_key_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.wav").write_bytes(WAV)
    with pytest.raises(ValueError) as caught:
        keys(tmp_path / "a", tmp_path / "b")
    for place in ("key x.wav", f"{tmp_path}/a/x.wav", f"{tmp_path}/b/x.wav"):
        assert place in str(caught.value)
    assert keys(tmp_path) == ["a/x.wav", "b/x.wav"]


def test_no_recordings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected recordings, found none"):
        keys(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing of that name"):
        keys(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="nothing of that name"):
        keys(f"{tmp_path}/*.wav")
    (tmp_path / "a.xyz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.xyz: expected a folder"):
        keys(tmp_path / "a.xyz")
    with pytest.raises(ValueError, match=r"expected paths or a datasets\.Dataset.* found int"):
        keys(3)


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / name).write_bytes(WAV)
    (item,) = list_items(tmp_path)
    assert item.key == "caf\\udce9.wav" and item.source.endswith(item.key)
    assert content(item) == WAV


def test_items_can_be_pickled(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    write_tar(tmp_path / "a.tar", {"1.wav": WAV, "1.txt": b"said"})
    items = list_items([tmp_path, tmp_path / "a.tar"])
    assert pickle.loads(pickle.dumps(items)) == items
    assert len(items) == len(RECORDINGS) + 1
    assert isinstance(items[0].location, PartLocation)


def test_splits_are_named_by_their_dictionary() -> None:
    """As save_to_disk names them; parts of one split keep its name in `.split`."""
    datasets = pytest.importorskip("datasets", reason="needs the test extra")
    whole = datasets.Dataset.from_dict({"audio": [{"bytes": b"a", "path": None}] * 4})
    found = keys(datasets.DatasetDict({"train": whole, "test": whole}))
    assert found == [f"{split}/{row:08d}" for split in ("test", "train") for row in range(4)]


@pytest.mark.parametrize("sources", [[], None, 3])
def test_no_sources_are_refused(sources: Any) -> None:
    with pytest.raises(ValueError, match="sources: expected one or more"):
        list_items(sources)


def test_pipes_are_failures_of_their_own(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with (
        pytest.raises(OSError, match="regular file"),
        FileLocation(str(tmp_path / "pipe.wav")).open(),
    ):
        pass
