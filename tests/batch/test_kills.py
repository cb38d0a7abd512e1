"""Kill -9 at random moments, and an end at each step of a run, then finish: the output of an
undisturbed run."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from data_sets import files_of, write_short_files
from programs import describe, tiny_program, write_program

import encodec_fast as ef
from encodec_fast.batch.journal import Journal

KILLS = 10
RECORDINGS = 400


def command(source: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "encodec_fast.cli", "tokenize", *options, str(source), str(out)]


def run(arguments: list[str]) -> tuple[float, str]:
    """The seconds that a command takes to its good end, and what it says."""
    started = time.monotonic()
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return time.monotonic() - started, done.stderr


def size_of(out: Path) -> int:
    """Bytes under a folder that a run may be writing to."""
    total = 0
    for path in out.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            total += path.stat().st_size
    return total


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
    kills = advanced = before = 0
    while kills < KILLS or advanced < KILLS // 3:
        process = subprocess.Popen(
            command(tmp_path / "in", out, *options), stderr=subprocess.DEVNULL
        )
        if advanced < KILLS // 3:  # a busy machine has no time that says where a run is
            while process.poll() is None and size_of(out) <= before:
                time.sleep(0.001)
            time.sleep(choose.uniform(0, 0.05))
        else:  # from where it reads what was left to where a part of the rest is done
            time.sleep(
                start * choose.uniform(0.5, 1) + choose.uniform(0, 2 * (seconds - start) / KILLS)
            )
        process.kill()
        if process.wait() == -signal.SIGKILL:
            kills += 1
            size = size_of(out)
            advanced += size > before
            before = size
        else:  # it was faster: once more from the beginning
            assert files_of(out) == files_of(whole)
            shutil.rmtree(out)
            before = 0
    assert advanced >= KILLS // 3
    run(command(tmp_path / "in", out, *options))
    assert files_of(out) == files_of(whole)


class Ended(BaseException):
    """The end of the process, in a test of one process."""


def end_at(patch: pytest.MonkeyPatch, step: int) -> list[str]:
    """Ends the process before or after (odd steps) the nth change of a file; the changes so far."""
    changes: list[str] = []

    def ending(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def change(*arguments: Any, **options: Any) -> Any:
            changes.append(name)
            last = len(changes) - 1 == step // 2
            if last and step % 2 == 0:
                raise Ended
            result = original(*arguments, **options)
            if last:
                raise Ended
            return result

        patch.setattr(owner, name, change)

    for owner, name in (
        (Journal, "append"), (Journal, "remove"), (Path, "replace"), (Path, "unlink"),
        (shutil, "rmtree"), (Path, "rmdir"),
    ):  # fmt: skip
        ending(owner, name)
    return changes


@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize("format", ["npy", "safetensors", "parquet", "ecdc"])
def test_an_end_at_each_step_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, retry: bool
) -> None:
    """Also of a run that tries failures again, of a shard with others and one with no others."""
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="needs the extra tokenize")
    codec = ef.Codec.load(tiny_program(tmp_path, "constant"))
    source, before = tmp_path / "in", tmp_path / "before"
    write_short_files(source, 7)
    options: dict[str, Any] = {"format": format, "shard_size": 2, "threads": 1}
    ef.tokenize(source, tmp_path / "whole", codec, **options)
    whole = files_of(tmp_path / "whole")
    if retry:
        options["retry_failed"] = True
        good = {n: (source / f"000{n}.wav").read_bytes() for n in (1, 4, 5)}
        for number in good:
            (source / f"000{number}.wav").write_bytes(b"no audio")
        assert len(ef.tokenize(source, before, codec, **options).failures) == len(good)
        for number, data in good.items():
            (source / f"000{number}.wav").write_bytes(data)
    out = tmp_path / "out"
    for step in range(1000):
        if retry:
            shutil.copytree(before, out)
        with monkeypatch.context() as patch:
            changes = end_at(patch, step)
            try:
                ef.tokenize(source, out, codec, **options)
                break
            except Ended:
                pass
        ef.tokenize(source, out, codec, **options)
        assert files_of(out) == whole, f"ended at change {step // 2}: {changes}"
        shutil.rmtree(out)
    assert step > 20
    assert {"append", "replace", "rmtree"} <= set(changes)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_it_cleanly(tmp_path: Path, number: int) -> None:
    header, tensors = describe("constant", width=64)
    program = write_program(tmp_path / "program.safetensors", header, tensors)
    write_short_files(tmp_path / "in", 400, seconds=2.0)
    arguments = command(tmp_path / "in", tmp_path / "out", "-m", str(program), "--threads", "2")
    # nohup and background jobs hand down ignored signals: start from the default.
    process = subprocess.Popen(
        arguments,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    while process.poll() is None and len(list((tmp_path / "out").glob("*.npy"))) < 3:
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == (130 if number == signal.SIGINT else 143), said
    assert "Traceback" not in said
    _, said = run(arguments)
    # Of the last file it may not have been recorded yet that it is there.
    assert int(re.search(r"(\d+) recordings were", said)[1]) >= 2
    assert len(list((tmp_path / "out").glob("*.npy"))) == 400
