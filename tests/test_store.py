"""Finding models by name and by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from encodec_fast import store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder."""
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def test_the_variable_names_the_models_folder(folder: Path) -> None:
    assert store.models_dir() == folder


def test_an_empty_variable_means_the_platform_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODEC_FAST_MODELS", "")
    assert store.models_dir().parts[-2:] == ("encodec_fast", "models")


def test_a_missing_folder_has_no_user_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODEC_FAST_MODELS", "/nonexistent/folder")
    assert all(program.origin == "bundled" for program in store.list_programs())


def test_names_and_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "mine.safetensors"
    path.touch()
    monkeypatch.chdir(folder)
    assert store.find_model("mine") == path
    assert store.find_program("mine") == path
    assert store.find_program(path) == path
    assert store.find_program(str(path)) == path
    assert store.find_program("mine.safetensors") == Path("mine.safetensors")
    assert store.StoredProgram("mine", path, "user") in store.list_programs()


def test_a_missing_model_says_how_to_get_it(folder: Path) -> None:
    with pytest.raises(store.ModelNotFoundError, match="encodec-fast models import") as error:
        store.find_program("encodec_24khz")
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../mine", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\n", "-x", "x" * 101]
)
def test_a_name_from_a_file_is_never_a_path(folder: Path, name: str) -> None:
    (folder.parent / "mine.safetensors").touch()
    with pytest.raises(ValueError, match="not a model name"):
        store.find_model(name)


def test_a_missing_path_is_no_name(folder: Path) -> None:
    with pytest.raises(store.ModelNotFoundError, match="no program file"):
        store.find_program(folder / "absent.safetensors")


def test_entropy_models_are_beside_programs(folder: Path) -> None:
    mine = folder / "mine.entropy.safetensors"
    for path in (folder / "mine.safetensors", folder / "bare.safetensors", mine):
        path.touch()
    assert store.find_entropy("mine") == mine
    assert store.find_entropy(folder / "mine.safetensors") == mine
    assert store.find_entropy(str(folder / "mine.safetensors")) == mine
    for name in ("bare", folder / "bare.safetensors", "encodec_24khz"):
        with pytest.raises(store.ModelNotFoundError, match=r"has no entropy model.*\.entropy\."):
            store.find_entropy(name)
    with pytest.raises(ValueError, match="not a model name"):
        store.find_entropy("..")


def test_an_entropy_model_is_no_program(folder: Path) -> None:
    (folder / "mine.entropy.safetensors").touch()
    assert "mine.entropy" not in [program.name for program in store.list_programs()]
    with pytest.raises(ValueError, match=r"not ending in '\.entropy'"):
        store.find_model("mine.entropy")


def test_a_bundled_program_finds_an_imported_entropy_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tmp_path))
    imported = tmp_path / "nano_24khz.entropy.safetensors"
    imported.touch()
    monkeypatch.setattr(store, "_DATA", tmp_path / "bundled")
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "nano_24khz.safetensors").touch()
    # By name for compressing, by what find_model returns for decompressing.
    assert store.find_entropy("nano_24khz") == imported
    assert store.find_entropy(store.find_model("nano_24khz")) == imported


def test_the_bundled_models_keep_to_their_room() -> None:
    room = {"nano_24khz": 8e6, "stereo_48khz": 12e6}
    bundled = [stored for stored in store.list_programs() if stored.origin == "bundled"]
    assert {stored.name for stored in bundled} == set(room)
    for stored in bundled:
        assert stored.path.stat().st_size <= room[stored.name]
        entropy = store.find_entropy(stored.name)
        assert entropy is not None and entropy.stat().st_size <= 6e6
    assert sum(path.stat().st_size for path in stored.path.parent.iterdir()) <= 40e6
