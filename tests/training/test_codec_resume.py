"""A run that is killed at any moment goes on with the very losses of one that was not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from codec_runs import tiny_settings

from encodec_fast.training.codec_trainer import CodecTrainer
from encodec_fast.training.configuration import as_yaml

STEPS = 40


def losses(log: Path) -> dict[int, str]:
    """The log's lines by step without what depends on time; the last one where there are two."""
    found = {}
    for line in log.read_text().splitlines():
        words = line.split()
        if "valid/mel" in line:
            found[-int(words[1])] = line
            continue
        step = int(words[1].split("/")[0])
        found[step] = " ".join(words[4:]).split(" s/step")[0]
    return found


def test_killed_and_resumed_it_gives_the_same_losses(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, steps=STEPS, save_steps=5)
    config = tmp_path / "run.yaml"
    config.write_text("task: codec\n" + as_yaml(settings))

    def start(out: str, *more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "encodec_fast.cli", "train", str(config), f"out={out}"]
        return subprocess.Popen(
            [*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    assert start(str(tmp_path / "whole")).wait(timeout=300) == 0
    killed = tmp_path / "killed"
    process = start(str(killed))
    deadline = time.monotonic() + 300
    while len(losses(killed / "train.log") if (killed / "train.log").exists() else {}) < STEPS // 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    saved = torch.load(killed / "last.pt", weights_only=True)["step"]
    assert 0 < saved < STEPS
    assert start(str(killed), "resume=true").wait(timeout=300) == 0
    assert losses(killed / "train.log") == losses(tmp_path / "whole" / "train.log")
    whole = torch.load(tmp_path / "whole" / "last.pt", weights_only=True)
    ours = torch.load(killed / "last.pt", weights_only=True)
    for name in ("model", "average"):
        for key, value in whole[name].items():
            assert torch.equal(ours[name][key], value), key


def test_all_of_the_state_comes_back(tmp_path: Path) -> None:
    first = CodecTrainer(tiny_settings(tmp_path))
    first.run()
    second = CodecTrainer(tiny_settings(tmp_path, resume=True, steps=6))
    assert second.step == 4 and second.elapsed == first.elapsed and second.best == first.best
    assert second.balancer.state_dict() == first.balancer.state_dict()
    second.run()
    assert second.step == 6


def test_asked_to_end_it_saves_the_step_that_it_is_in(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, steps=100_000, save_steps=100_000)
    config = tmp_path / "run.yaml"
    config.write_text("task: codec\n" + as_yaml(settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "encodec_fast.cli", "train", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    log = Path(settings.out) / "train.log"
    deadline = time.monotonic() + 300
    while not log.exists() or not log.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and b"resume=true" in errors
    assert torch.load(Path(settings.out) / "last.pt", weights_only=True)["step"] > 0
