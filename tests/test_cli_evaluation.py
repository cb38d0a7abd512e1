"""`encodec-fast evaluate`: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from programs import describe, tiny_program, write_program
from signals import synthetic_clip

from encodec_fast import cli

RATE = 8000
MODEL = "tiny_reflect.safetensors"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a model, and a folder with a recording and a bad one."""
    monkeypatch.chdir(tmp_path)
    tiny_program(tmp_path, "reflect")
    Path("data/speech").mkdir(parents=True)
    soundfile.write("data/speech/a.wav", synthetic_clip(0, RATE, 1)[0, :3000], RATE)
    Path("data/bad|\n.wav").write_text("no audio")
    return tmp_path


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with status 1, one line on stderr and nothing written."""

    def run(*arguments: str) -> str:
        before = set(Path().rglob("*"))
        assert cli.main(["evaluate", *arguments, "--jobs", "1"]) == 1
        printed = capsys.readouterr()
        assert printed.out == "" and printed.err.count("\n") == 1
        assert printed.err.startswith("encodec-fast: error: ")
        assert set(Path().rglob("*")) == before
        return printed.err

    return run


def test_table_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", MODEL, "data", "-b", "6", "-b", "3", "--jobs", "1"]) == 0
    printed = capsys.readouterr()
    assert "### 8 kHz mono" in printed.out
    assert "| speech | 1 | tiny_reflect, 3 kbps | 6.67 |" in printed.out
    assert "12 kbps |" not in printed.out.replace("Opus 12 kbps |", "")
    lines = [line for line in printed.out.splitlines() if line.startswith("| speech |")]
    assert len(lines) >= 2 and len({line.count("|") for line in lines}) == 1
    assert printed.err == "encodec-fast: warning: 1 of 2 recordings skipped: the report says why\n"
    assert printed.out.count("bad") == 1  # its name is not in the reason, too
    assert r"- skipped bad\|\n.wav: Format not recognised" in printed.out


def test_files(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    arguments = [
        "evaluate",
        MODEL,
        "data",
        "--jobs",
        "1",
        "--out",
        "out/deep",
        "--markdown",
        "t.md",
    ]
    for _ in range(2):  # a second run replaces the files
        assert cli.main(arguments) == 0
        assert capsys.readouterr().out == ""
        assert {path.name for path in Path("out/deep").iterdir()} == {
            "evaluation.json",
            "index.html",
        }
    content = json.loads(Path("out/deep/evaluation.json").read_text())
    assert content["models"] == {"tiny_reflect": MODEL}
    page = Path("out/deep/index.html").read_text()
    assert "<audio" in page and "tiny_reflect" in page
    assert Path("t.md").read_text().startswith("### 8 kHz mono")
    assert cli.main([*arguments, "--no-audio"]) == 0
    assert "<audio" not in Path("out/deep/index.html").read_text()


def test_wrong_arguments(error: Callable[..., str]) -> None:
    assert "1.5 kbps" in error(MODEL, "data", "-b", "1.5")
    assert "nosuch not found" in error("nosuch", "data")
    assert "no folder or file at none" in error(MODEL, "none")
    assert "given twice" in error(MODEL, MODEL, "data")
    assert "limit" in error(MODEL, "data", "--limit", "0")
    assert "visqol: no file at none" in error(MODEL, "data", "--visqol", "none")
    Path("empty").mkdir()
    assert "no audio files" in error(MODEL, "empty")
    Path("broken.pt").write_text("no checkpoint")
    assert "broken.pt" in error("broken.pt", "data")


def test_without_the_extra(error: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "encodec_fast.evaluation.page", raising=False)
    monkeypatch.delitem(sys.modules, "encodec_fast.evaluation.pictures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "encodec-fast[evaluate]" in error(MODEL, "data", "--out", "out")


def test_a_place_that_cannot_be_written_costs_no_time(
    error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    Path("file").touch()
    Path("out/index.html").mkdir(parents=True)
    Path("locked").mkdir()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the run began")

    monkeypatch.setattr("encodec_fast.evaluation.run.evaluate", never)
    assert "none/t.md: its folder does not exist" in error(MODEL, "data", "--markdown", "none/t.md")
    assert "out/index.html is a folder" in error(MODEL, "data", "--out", "out")
    assert "file" in error(MODEL, "data", "--out", "file")
    assert "file/in" in error(MODEL, "data", "--out", "file/in")
    touch = Path.touch

    def locked(path: Path, **options: bool) -> None:  # root may write everywhere
        if "locked" in path.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        touch(path, **options)

    monkeypatch.setattr(Path, "touch", locked)
    assert "locked/evaluation.json: Permission denied" in error(MODEL, "data", "--out", "locked")


def test_a_failed_run_leaves_the_files_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Path("t.md").write_text("before")
    before = set(tmp_path.rglob("*"))
    assert cli.main(["evaluate", "nosuch", "data", "--markdown", "t.md"]) == 1
    assert Path("t.md").read_text() == "before" and set(tmp_path.rglob("*")) == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("asked", "end"), [(["6", "12"], ""), (["12"], ": it is left out")])
def test_one_recording_and_a_bandwidth_that_a_model_lacks(
    capsys: pytest.CaptureFixture[str], asked: list[str], end: str
) -> None:
    header, tensors = describe("reflect")
    write_program(Path("low.safetensors"), {**header, "bandwidths": [[3.0, 1], [6.0, 2]]}, tensors)
    chosen = [word for kbps in asked for word in ("-b", kbps)]
    models = [MODEL, "low.safetensors"]
    assert cli.main(["evaluate", *models, "data/speech/a.wav", *chosen, "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "| unsorted | 1 | tiny_reflect, 12 kbps |" in printed
    assert ("low, 6 kbps" in printed) == ("6" in asked)
    assert f"- low has no 12 kbps{end}\n" in printed


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes there alone")
def test_names_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    Path("data/speech/a.wav").rename("data/speech/\udcff.wav")
    assert cli.main(["evaluate", MODEL, "data", "-b", "6", "--jobs", "1", "--out", "out"]) == 0
    assert r"speech/\udcff.wav" in Path("out/index.html").read_text()
    assert capsys.readouterr().err.count("\n") == 1
