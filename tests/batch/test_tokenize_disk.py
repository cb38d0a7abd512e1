"""Runs on disks that are full or cannot be written: a clear error, and a run that goes on later."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from data_sets import files_of, write_corpus, write_short_files
from programs import tiny_program

import encodec_fast as ef
from encodec_fast.batch.journal import Journal


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_program(tmp_path_factory.mktemp("program"), "constant")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_target_that_cannot_be_written(tmp_path: Path, program: Path) -> None:
    """Root may write anywhere but into what is no real folder."""
    write_corpus(tmp_path / "corpus")
    if os.geteuid() == 0:
        out = Path("/proc/self/tokens")
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        out = tmp_path / "closed" / "out"
    with pytest.raises(OSError) as caught:
        ef.tokenize(tmp_path / "corpus", out, program)
    assert caught.value.errno in (errno.EACCES, errno.EROFS, errno.ENOENT, errno.EPERM)
    assert str(out) in str(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 200 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_a_full_disk(small_disk: Path, tmp_path: Path, program: Path, format: str) -> None:
    """An error that names it; with room again, the run goes on as if nothing had been."""
    write_short_files(tmp_path / "in", 60, seconds=0.4)
    options = {"codec": program, "bandwidth": 12.0, "format": format, "shard_size": 25}
    ef.tokenize(tmp_path / "in", tmp_path / "whole", threads=1, **options)
    ballast = small_disk / ".ballast"
    ballast.write_bytes(bytes(100_000))
    with pytest.raises(OSError) as caught:
        ef.tokenize(tmp_path / "in", small_disk, threads=1, **options)
    assert caught.value.errno == errno.ENOSPC and str(small_disk) in str(caught.value)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=8M", str(small_disk)], check=True)
    assert ef.tokenize(tmp_path / "in", small_disk, threads=1, **options).resumed > 0
    assert files_of(small_disk) == files_of(tmp_path / "whole")


def test_a_full_disk_of_any_kind(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, where no small file system can be had."""
    write_short_files(tmp_path / "in", 20)
    options: dict[str, Any] = {"codec": program, "format": "safetensors", "threads": 2}
    ef.tokenize(tmp_path / "in", tmp_path / "whole", **options)
    append = Journal.append
    left = 7

    def full(self: Any, *arguments: Any) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        return append(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", full)
        with pytest.raises(OSError, match="No space left"):
            ef.tokenize(tmp_path / "in", tmp_path / "out", **options)
    assert ef.tokenize(tmp_path / "in", tmp_path / "out", **options).resumed == 7
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
