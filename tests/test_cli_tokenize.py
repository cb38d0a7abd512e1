"""The `encodec-fast tokenize` command."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from programs import tiny_program

import encodec_fast as ef
from encodec_fast.cli import main


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    program = tiny_program(tmp_path, "constant")
    (tmp_path / "in").mkdir()
    for number in range(4):
        wav = np.random.default_rng(number).uniform(-0.5, 0.5, 3000 + number)
        soundfile.write(tmp_path / "in" / f"{number}.flac", wav, 8000)
    return ["tokenize", "-m", str(program)]


def test_a_run_and_its_summary(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(tmp_path / "in"), str(tmp_path / "out")
    arguments = [*options, "-b", "12", "--format", "safetensors", "--shard-size", "3", source, out]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.out == "" and "4 recordings, 0.00 h; 4 of them coded in" in said.err
    assert len(list(Path(out).glob("*.safetensors"))) == 2
    found = list(ef.load_tokens(out))
    assert [tokens.key for tokens in found] == [f"{n}.flac" for n in range(4)]
    assert {tokens.codes.shape[0] for tokens in found} == {4}
    assert main(arguments) == 0
    assert "finished before" in capsys.readouterr().err


def test_entropy_coded_files(
    tmp_path: Path, tiny_entropies: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    program = tiny_entropies / "tiny_constant.safetensors"
    source, out = str(tmp_path / "in"), tmp_path / "out"
    arguments = ["tokenize", "-m", str(program), "--entropy", "lm", source, str(out)]
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "entropy: lm is for format ecdc alone" in said and not out.exists()
    assert main([*arguments, "--format", "ecdc"]) == 0
    codec = ef.Codec.load(program)
    assert len(list(ef.load_tokens(out, codec))) == 4
    capsys.readouterr()
    assert main(["info", "-m", str(program), str(next(out.glob("0*.ecdc")))]) == 0
    assert "language model" in capsys.readouterr().out


def test_failures_are_listed_and_the_status_says_so(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(12):
        (tmp_path / "in" / f"bad{number}.wav").write_bytes(b"no audio")
    arguments = [*options, str(tmp_path / "in"), str(tmp_path / "out")]
    for _ in range(2):
        assert main(arguments) == 3
        said = capsys.readouterr().err
        assert "12 failed" in said and f"failed: {tmp_path}/in/bad0.wav: " in said
        assert "2 more failures are listed" in said
    assert len((tmp_path / "out" / "failed.jsonl").read_text().splitlines()) == 12
    for number in range(12):
        target = tmp_path / "in" / f"bad{number}.wav"
        soundfile.write(target, np.zeros(800), 8000)
    assert main([*arguments, "--retry-failed"]) == 0
    assert "4 recordings were there from an earlier call" in capsys.readouterr().err
    assert len(list(ef.load_tokens(tmp_path / "out"))) == 16


def test_jobs_of_an_array(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*options, str(tmp_path / "in" / "*.flac"), str(tmp_path / "out")]
    for index in range(2):
        assert main([*arguments, "--shard", f"{index}/2"]) == 0
    assert len(list(ef.load_tokens(tmp_path / "out"))) == 4
    assert main([*arguments, "--shard", "2/2"]) == 1
    assert "shard: expected (i, n)" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--shard", "one"])


def test_errors_are_one_line(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(tmp_path / "in"), str(tmp_path / "out")
    for arguments, expected in (
        ([str(tmp_path / "none"), out], "nothing of that name"),
        ([source, source], "expected a new or empty folder"),
        (["-b", "5", source, out], "bandwidth: "),
        (["-t", "0", source, out], "threads: "),
    ):
        assert main([*options, *arguments]) == 1
        said = capsys.readouterr().err
        assert said.startswith("encodec-fast: error: ") and said.count("\n") == 1
        assert expected in said
    assert not Path(out).exists()


def test_progress_on_a_terminal_alone(tmp_path: Path, options: list[str]) -> None:
    pty = pytest.importorskip("pty", reason="no terminals")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    for number in range(40):
        soundfile.write(tmp_path / "in" / f"long{number}.wav", np.zeros(40_000), 8000)
    arguments = [*options, str(tmp_path / "in"), str(tmp_path / "out")]
    ours, theirs = pty.openpty()
    # A bar has no room on a terminal without columns.
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 100, 0, 0))
    subprocess.run(
        [sys.executable, "-m", "encodec_fast.cli", *arguments], stderr=theirs, check=True
    )
    os.close(theirs)
    said = b""
    try:
        while more := os.read(ours, 4096):
            said += more
    except OSError:  # the end of a terminal
        pass
    os.close(ours)
    assert b"h/h" in said and b"0 failed" in said and b"%" in said
    arguments[-1] += "2"
    quiet = subprocess.run(
        [sys.executable, "-m", "encodec_fast.cli", *arguments], capture_output=True, check=True
    )
    assert b"h/h" not in quiet.stderr
