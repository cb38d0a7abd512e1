"""`encodec-fast train`: where runs are resumed, what they start from, what they say."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codec_runs import TINY, tiny_settings

from encodec_fast import cli
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.export import export_model
from encodec_fast.training import start
from encodec_fast.training.codec_settings import CodecSettings
from encodec_fast.training.codec_trainer import CodecTrainer
from encodec_fast.training.configuration import as_yaml, load_settings
from encodec_fast.training.lm_settings import LmSettings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a configuration of relative paths in it."""
    settings = replace(tiny_settings(tmp_path), out="run", audio="audio")
    (tmp_path / "tiny.yaml").write_text("task: codec\n" + as_yaml(settings))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def steps_of(run: Path) -> int:
    return int(torch.load(run / "last.pt", weights_only=True)["step"])


def test_a_run_is_resumed_from_anywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "audio" / "empty.flac").write_bytes(b"")
    manifest = folder / "audio" / "MANIFEST.csv"
    header, rows = manifest.read_text().split("\n", 1)
    manifest.write_text(f"{header}\nempty.flac,train,speech,CC0-1.0\n{rows}")
    start.train("tiny.yaml")
    monkeypatch.chdir(folder / "elsewhere")
    start.train("../run/settings.yaml", ["resume=true", "steps=5"])
    assert steps_of(folder / "run") == 5 and not list(Path().iterdir())
    assert "no checkpoint" not in capfd.readouterr().err
    skipped = (folder / "run" / "skipped.tsv").read_text()
    assert skipped == f"{folder / 'audio' / 'empty.flac'}\tempty file\n"


@pytest.mark.parametrize("copied", [False, True])
def test_a_runs_settings_are_those_of_the_folder_that_it_is_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    start.train("tiny.yaml")
    (shutil.copytree if copied else shutil.move)("run", "elsewhere/other")
    monkeypatch.chdir(folder / "elsewhere")
    with pytest.raises(ValueError, match=r"out: .*other holds a run: resume=true"):
        start.train("other/settings.yaml")
    start.train("other/settings.yaml", ["resume=true", "steps=6"])
    assert steps_of(Path("other")) == 6
    assert (folder / "run").exists() == copied
    assert not copied or steps_of(folder / "run") == 4
    start.train("other/settings.yaml", ["out=third", "steps=1"])
    assert steps_of(Path("third")) == 1


def test_a_run_that_is_not_there_starts_anew_and_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start.train("tiny.yaml", ["resume=true", "steps=1"])
    line = f"no checkpoint in {folder / 'run'}: starting anew"
    assert line in capsys.readouterr().err.splitlines()
    assert line in Path("run/train.log").read_text().splitlines()


def test_a_refused_start_leaves_no_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = ["tiny.yaml", "data.cache=cache", "data.train.0.path=elsewhere/none.csv"]
    assert cli.main(["train", *refused]) == 1
    assert "none.csv" in capsys.readouterr().err and not Path("run").exists()
    Path("run").mkdir()
    Path("run/mine.txt").touch()
    assert cli.main(["train", *refused]) == 1
    assert Path("run/mine.txt").exists()


def test_the_paths_of_a_run_are_kept_absolute(folder: Path) -> None:
    settings = load_settings(CodecSettings, "tiny.yaml", ["start_from=nano_24khz"])
    assert settings.rooted().start_from == "nano_24khz"
    assert settings.rooted().audio == str(folder / "audio")
    Path("mine.safetensors").touch()
    mine = replace(settings, start_from="mine.safetensors", audio="")
    assert mine.rooted().start_from == str(folder / "mine.safetensors")
    assert mine.rooted().placed_data.train[0].path == str(folder / "MANIFEST.csv")


def test_the_codec_of_an_entropy_model_is_a_name_or_a_path(folder: Path) -> None:
    for given, kept in (
        ("nano_24khz", "nano_24khz"),
        ("mine.safetensors", str(folder / "mine.safetensors")),
        ("run/mine.safetensors", str(folder / "run" / "mine.safetensors")),
    ):
        overrides = ["audio=audio", "out=lm", f"codec={given}"]
        settings = load_settings(LmSettings, "lm_nano_24khz", overrides).rooted()
        assert settings.codec == kept and settings.out == str(folder / "lm")


def quantised_from(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    """The plain_steps of a run of one of our configurations."""
    found: list[CodecSettings] = []
    monkeypatch.setattr(start, "train_codec", found.append)
    start.train("nano_24khz", ["audio=a", "out=b", *overrides])
    return found[0].quantizer.plain_steps


def test_trained_codebooks_are_used_from_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    assert quantised_from(monkeypatch) == 300
    assert quantised_from(monkeypatch, "start_from=nano_24khz") == 0
    kept = ["start_from=nano_24khz", "quantizer.plain_steps=20"]
    assert quantised_from(monkeypatch, *kept) == 20


def test_what_a_run_starts_from_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(TINY, sample_rate=12000, bandwidths=(0.15, 0.3))
    export_model(EncodecModel(other), tmp_path / "low.safetensors")
    low = str(tmp_path / "low.safetensors")
    CodecTrainer(tiny_settings(tmp_path, start_from=low))
    told = capsys.readouterr().err
    assert f"start_from: {low} was trained at 12000 Hz, this run is at 24000 Hz\n" in told
    assert f"start_from: 2 steps without {low}'s codebooks (plain_steps)\n" in told
    export_model(EncodecModel(TINY), tmp_path / "same.safetensors")
    quantizer = replace(tiny_settings(tmp_path).quantizer, plain_steps=0)
    same = str(tmp_path / "same.safetensors")
    CodecTrainer(tiny_settings(tmp_path, start_from=same, quantizer=quantizer))
    assert "start_from" not in capsys.readouterr().err


@pytest.mark.parametrize(("steps", "warned"), [(2, True), (3, False)])
def test_a_model_whose_codebooks_never_started_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], steps: int, warned: bool
) -> None:
    start.train("tiny.yaml", [f"steps={steps}"])
    line = (
        "warning: tiny.safetensors codes nothing: the run ended at step 2, its codebooks start "
        "after quantizer.plain_steps=2"
    )
    assert (line in capsys.readouterr().err) == warned
    assert (line in Path("run/train.log").read_text()) == warned
