"""Archives as sources: samples, extras, and what is left of one that is damaged."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import pytest
from data_sets import sound_bytes, write_tar
from test_listing import WAV, content, keys

from encodec_fast.batch.items import (
    MAX_EXTRA_BYTES,
    FileLocation,
    Item,
    PartLocation,
    read_extra,
)
from encodec_fast.batch.sources import list_items


def test_archives(tmp_path: Path) -> None:
    flac = sound_bytes("y.flac", 8000, 1, 0.1)
    path = write_tar(
        tmp_path / "shard-0.tar",
        {
            "./a/001.wav": WAV,
            "./a/001.txt": b"said",
            "./a/001.meta.json": b"{}",
            "002.left.wav": WAV,
            "002.right.FLAC": flac,
            "002.txt": b"both",
            "003.txt": b"without audio",
            "._004.wav": b"of another system",
        },
    )
    items = list_items(path)
    prefix = "shard-0.tar"
    assert [item.key for item in items] == [
        f"{prefix}/002.left.wav", f"{prefix}/002.right.FLAC", f"{prefix}/a/001"
    ]  # fmt: skip
    assert [content(item) for item in items] == [WAV, flac, WAV]
    assert [read_extra(item) for item in items] == [
        {"txt": b"both"}, {"txt": b"both"}, {"txt": b"said", "meta.json": b"{}"}
    ]  # fmt: skip
    assert items[0].source == f"{path}: 002.left.wav" and items[0].size == len(WAV)

    write_tar(tmp_path / "shard-1.tar", {"001.wav": WAV})
    assert len(keys(f"{tmp_path}/shard-*.tar")) == len(keys(tmp_path)) == 4


def three_samples(folder: Path) -> Path:
    members = {f"{n}.{kind}": data for n in "123" for kind, data in (("wav", WAV), ("txt", b"x"))}
    return write_tar(folder / "a.tar", members)


def check_damage(folder: Path, reason: str, *samples: str) -> None:
    """Whether an archive is a failure beside the samples before its damage, and no other one is."""
    write_tar(folder / "b.tar", {"1.wav": WAV})
    found = {item.key: item for item in list_items(folder)}
    assert found.keys() == {"a.tar", "b.tar/1", *(f"a.tar/{name}" for name in samples)}
    damaged = pickle.loads(pickle.dumps(found.pop("a.tar")))
    assert damaged.source == str(folder / "a.tar")
    with pytest.raises(ValueError, match=f"damaged archive: .*{reason}"):
        content(damaged)
    assert {content(item) for item in found.values()} == {WAV}


def test_a_damaged_header_in_an_archive(tmp_path: Path) -> None:
    path = three_samples(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(b"2.txt")] ^= 1
    path.write_bytes(data)
    check_damage(tmp_path, "found a damaged header", "1")


@pytest.mark.parametrize("name", ["1.wav", "2.wav", "3.wav", "3.txt"])
def test_a_truncated_archive(tmp_path: Path, name: str) -> None:
    """The sample that it ends in may lack members, or a part of its audio."""
    path = three_samples(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(name.encode()) + 512 + 1])
    check_damage(tmp_path, "unexpected end of data", *"12"[: int(name[0]) - 1])


@pytest.mark.parametrize("data", [b"", b"no archive" * 100])
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(data)
    check_damage(tmp_path, "expected an uncompressed tar archive")


@pytest.mark.parametrize("name", ["2.wav", "./2.txt"])
def test_a_member_twice(tmp_path: Path, name: str) -> None:
    path = three_samples(tmp_path)
    with tarfile.open(path, "a") as archive:
        archive.addfile(tarfile.TarInfo(name))
    check_damage(tmp_path, f"member '{name}': expected it once, found it twice", *"13")


def test_a_short_archive_is_the_items_failure(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1.wav": WAV, "1.txt": b"said"})
    item = list_items(path)[0]
    path.write_bytes(path.read_bytes()[: item.extra[0][1].start])
    with pytest.raises(OSError, match="expected 4 bytes"):
        read_extra(item)


def test_extras_of_any_size_are_not_read(tmp_path: Path) -> None:
    def item(*sizes: int) -> Item:
        parts = [(f"{n}.mp4", PartLocation("gone", 0, size)) for n, size in enumerate(sizes)]
        return Item("k", FileLocation("x"), "place", extra=tuple(parts))

    for sizes in ([1 << 40], [MAX_EXTRA_BYTES - 5 - 5, 1], [MAX_EXTRA_BYTES - 4]):
        with pytest.raises(ValueError, match=f"place: expected at most {MAX_EXTRA_BYTES} bytes"):
            read_extra(item(*sizes))
    with pytest.raises(FileNotFoundError):  # it tries to
        read_extra(item(MAX_EXTRA_BYTES - 5))
