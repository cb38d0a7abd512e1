"""load_tokens: files, folders with a manifest and without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from token_items import assert_equal, make_tokens, tiny_codec

import encodec_fast as ef
from encodec_fast.batch.formats import FORMATS


def test_a_folder_of_all_formats(tmp_path: Path) -> None:
    codec = tiny_codec(tmp_path)
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / ".tokenize").mkdir()
    expected = []
    names = ["npy", "safetensors", "webdataset", "ecdc"]
    for number, name in enumerate(names):
        format = FORMATS[name]
        items = [make_tokens(codec, f"{name}/{i}", i) for i in range(1 if format.per_item else 4)]
        format.write(items, out / "deep" / f"{number}{format.suffix}", codec)
        expected += items
    FORMATS["npy"].write([make_tokens(codec, "partial")], out / ".tokenize" / "x.npy", codec)
    FORMATS["npy"].write([make_tokens(codec, "partial")], out / ".x.npy", codec)
    (out / "notes.txt").write_text("not tokens")
    found = list(ef.load_tokens(out, codec))
    for one, item in zip(found, expected, strict=True):
        assert_equal(one, item)


def test_manifests_name_the_files_in_order(tmp_path: Path) -> None:
    codec = tiny_codec(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    for key in "abcd":
        FORMATS["npy"].write([make_tokens(codec, key)], out / f"{key}.npy", codec)
    for number, keys in enumerate(["cb", "a"]):
        files = [{"file": f"{key}.npy", "bytes": 1, "items": 1, "sha256": ""} for key in keys]
        path = out / f"manifest-{number:05d}-of-00003.json"
        path.write_text(json.dumps({"version": 1, "files": files}))
    assert [tokens.key for tokens in ef.load_tokens(str(out))] == ["c", "b", "a"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"files": [{"file": "../secret.npy"}]}',
        '{"files": [{"file": 3}]}',
        '{"files": [{"file": "/etc/x.npy"}]}',
        '{"files": [{"file": "x.exe"}]}',
        "[" * 100000,
    ],
)
def test_damaged_manifests(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        ef.load_tokens(tmp_path)


def test_what_is_no_tokens_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        ef.load_tokens(tmp_path / "absent.npy")
    with pytest.raises(ValueError, match="found none"):
        ef.load_tokens(tmp_path)
    (tmp_path / "x.wav").touch()
    with pytest.raises(ValueError, match=r"x\.wav.*\.parquet"):
        ef.load_tokens(tmp_path / "x.wav")


def test_a_missing_file_of_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": [{"file": "a.npy"}]}')
    with pytest.raises(FileNotFoundError, match=r"a\.npy"):
        list(ef.load_tokens(tmp_path))


def test_urls(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="URLs need fsspec")
    codec = tiny_codec(tmp_path)
    items = [make_tokens(codec, f"key/{number}", number) for number in range(3)]
    FORMATS["webdataset"].write(items, tmp_path / "b.tar", codec)
    FORMATS["safetensors"].write(items[:1], tmp_path / "a.safetensors", codec)
    memory = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}"
    for name in ("b.tar", "a.safetensors"):
        memory.pipe_file(f"{root}/{name}", (tmp_path / name).read_bytes())
    url = f"memory:/{root}"
    assert [t.key for t in ef.load_tokens(f"{url}/b.tar")] == [item.key for item in items]
    assert [t.key for t in ef.load_tokens(url)] == ["key/0", "key/0", "key/1", "key/2"]
    files = [{"file": name} for name in ("b.tar", "a.safetensors")]
    memory.pipe_file(f"{root}/manifest.json", json.dumps({"files": files}).encode())
    assert [t.key for t in ef.load_tokens(url)] == ["key/0", "key/1", "key/2", "key/0"]
    with pytest.raises(FileNotFoundError, match="absent"):
        ef.load_tokens(f"{url}/absent.tar")
