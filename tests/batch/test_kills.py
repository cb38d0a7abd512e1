"""Kill -9 at random moments, then finish: the output of an undisturbed run."""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data_sets import files_of, write_short_files
from programs import describe, write_program

KILLS = 10
RECORDINGS = 400


def command(source: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "encodec_fast.cli", "tokenize", *options, str(source), str(out)]


def run(arguments: list[str]) -> tuple[float, str]:
    """The seconds that a command takes to its good end, and what it says."""
    started = time.monotonic()
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return time.monotonic() - started, done.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9")
@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_kills_do_not_show(tmp_path: Path, format: str) -> None:
    header, tensors = describe("constant", width=32)
    program = write_program(tmp_path / "program.safetensors", header, tensors)
    write_short_files(tmp_path / "in", RECORDINGS, seconds=1.0)
    options = ["-m", str(program), "--format", format, "--shard-size", "20", "--threads", "2"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    seconds, _ = run(command(tmp_path / "in", whole, *options))
    start, said = run(command(tmp_path / "in", whole, *options))  # which codes nothing
    assert "finished before" in said
    choose = random.Random(format)
    kills = advanced = 0
    before = 0
    while kills < KILLS:
        process = subprocess.Popen(
            command(tmp_path / "in", out, *options), stderr=subprocess.DEVNULL
        )
        # From where it reads what was left to where a part of the rest is done.
        time.sleep(
            start * choose.uniform(0.5, 1) + choose.uniform(0, 2 * (seconds - start) / KILLS)
        )
        process.kill()
        if process.wait() == -signal.SIGKILL:
            kills += 1
            size = sum(map(len, files_of(out).values())) if out.exists() else 0
            advanced += size > before
            before = size
        else:  # it was faster: once more from the beginning
            assert files_of(out) == files_of(whole)
            shutil.rmtree(out)
            before = 0
    assert advanced >= KILLS // 3  # the others hit before a recording ended
    run(command(tmp_path / "in", out, *options))
    assert files_of(out) == files_of(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_cleanly(tmp_path: Path, number: int) -> None:
    header, tensors = describe("constant", width=64)
    program = write_program(tmp_path / "program.safetensors", header, tensors)
    write_short_files(tmp_path / "in", 200, seconds=2.0)
    arguments = command(tmp_path / "in", tmp_path / "out", "-m", str(program), "--threads", "2")
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(list((tmp_path / "out").glob("*.npy"))) < 3:
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == (130 if number == signal.SIGINT else 143), said
    assert "Traceback" not in said
    _, said = run(arguments)
    assert int(re.search(r"(\d+) recordings were", said)[1]) >= 3
    assert len(list((tmp_path / "out").glob("*.npy"))) == 200
