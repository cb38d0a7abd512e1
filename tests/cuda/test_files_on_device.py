"""Files on the emulated device: lists, single files, live streams and damage, in every mode."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulated import HERE, package, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(tmp_path_factory.getbasetemp() / "emulated")


@pytest.mark.parametrize("kind", ["reflect", "segments"])
def test_files_are_those_of_the_cpu(folder: Path, kind: str) -> None:
    done = run(folder, str(HERE / "files_on_device.py"), kind)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{kind}: equal\n"
