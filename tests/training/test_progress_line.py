"""The progress line: what it says, in the log and on a terminal."""

from __future__ import annotations

import io
import os
import re
import select
import struct
from pathlib import Path

import pytest
import torch

from encodec_fast.training.progress_line import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def without_time(line: str) -> str:
    return re.sub(r"s/step [\d.e+-]+", "s/step #", line)


def test_one_line_every_few_steps(tmp_path: Path) -> None:
    log, stream = tmp_path / "train.log", io.StringIO()
    with ProgressLine(log, steps=40, every=10, stream=stream) as progress:
        for step in range(1, 24):
            losses: dict[str, float | torch.Tensor] = {"mel": torch.tensor(float(step))}
            if step % 2 == 0:  # not every loss is there at every step
                losses["adv"] = 0.001 * step
            shares = {"mel": 1 / 3, "adv": 2 / 3}
            progress.update(step, step / 2, losses, shares, {"lr": 3e-4})
    lines = [without_time(line) for line in log.read_text().splitlines()]
    assert lines == [
        "step 10/40 minutes 5.0 mel 5.5 (33 %) adv 0.006 (67 %) lr 0.0003 s/step #",
        "step 20/40 minutes 10.0 mel 15.5 (33 %) adv 0.016 (67 %) lr 0.0003 s/step #",
    ]
    assert stream.getvalue() == log.read_text()


def test_a_run_of_minutes_goes_on_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("before\n")
    with ProgressLine(log, minutes=90, every=1, stream=io.StringIO()) as progress:
        progress.update(7, 4.56, {"l1": float("nan")})
        progress.note("best so far")
    lines = [without_time(line) for line in log.read_text().splitlines()]
    assert lines == ["before", "step 7 minutes 4.6/90 l1 nan s/step #", "best so far"]


@pytest.mark.parametrize("bounds", [{"steps": 12}, {"minutes": 3.0}])
def test_the_last_steps_are_in_the_log(tmp_path: Path, bounds: dict[str, int]) -> None:
    progress = ProgressLine(tmp_path / "train.log", every=10, stream=io.StringIO(), **bounds)
    for step in range(1, 13):
        progress.update(step, step / 4, {"l1": step})
    means = re.findall(r"l1 ([\d.]+)", (tmp_path / "train.log").read_text())
    assert means == ["5.5", "11.5"]


def test_seconds_per_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    log = tmp_path / "train.log"
    progress = ProgressLine(log, steps=100, every=5, stream=io.StringIO())
    for step in range(51, 61):
        now += 0.25 if step <= 55 else 2.0
        progress.update(step, 0.0, {})
    assert [line.split()[-1] for line in log.read_text().splitlines()] == ["0.25", "2"]


def test_in_place_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("encodec_fast.training.progress_line.time.monotonic", lambda: now)
    log, stream = tmp_path / "train.log", Terminal()
    with ProgressLine(log, steps=1000, every=100, stream=stream) as progress:
        for step in range(1, 251):
            now += 0.01
            progress.update(step, 0.0, {"mel": 0.4124}, {"mel": 0.333})
        text = stream.getvalue()
        assert "\n" not in text and "step 200/1000 minutes 0.0 mel 0.4124 (33 %)" in text
        shown = re.findall(r"step (\d+)/1000", text)
        assert len(set(shown)) <= 12  # of 2.5 s, at most one every 0.3 s, and those of the log
        progress.note("a note")
    assert re.search(r"(^|\r)a note\n", stream.getvalue())
    assert stream.getvalue().endswith("\n")
    noted = [line.partition(" minutes")[0] for line in log.read_text().splitlines()]
    assert noted == ["step 100/1000", "step 200/1000", "a note"]


def test_a_long_line_does_not_wrap(tmp_path: Path) -> None:
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    fcntl = pytest.importorskip("fcntl")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    with os.fdopen(theirs, "w", encoding="utf-8") as stream:
        progress = ProgressLine(tmp_path / "train.log", steps=3, every=1, stream=stream)
        progress.update(1, 0.0, {f"loss_{i}": 1 / (i + 3) for i in range(12)})
        progress.close()
        stream.flush()
        shown = b""
        while b"step 1/3" not in shown or not shown.endswith(b"\n"):  # it comes in parts
            assert select.select([ours], [], [], 10)[0], shown
            shown += os.read(ours, 10_000)
    os.close(ours)
    pieces = [piece.strip("\x1b[A\n") for piece in shown.decode().split("\r")]
    assert any("step 1/3" in piece for piece in pieces)
    assert max(len(piece) for piece in pieces) <= 70


def test_bounds_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every: expected at least 1 step, found 0"):
        ProgressLine(tmp_path / "log", steps=1, every=0)
    with pytest.raises(ValueError, match="steps, minutes: expected one of them above 0"):
        ProgressLine(tmp_path / "log")


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    progress = ProgressLine(tmp_path / "missing" / "train.log", steps=1, every=1)
    with pytest.raises(FileNotFoundError, match=r"missing.train\.log"):
        progress.update(1, 0.0, {})
