"""Processes that make batches: they outlive signals to their group, and tell errors in one line."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from codec_runs import tiny_settings

from encodec_fast.training.configuration import as_yaml
from encodec_fast.training.data import DataSettings, open_batches
from encodec_fast.training.data_settings import ReverbSettings
from encodec_fast.training.sources import SourceSettings


@pytest.mark.skipif(os.name != "posix", reason="no groups of processes")
def test_a_signal_to_the_group_saves_the_run(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, steps=100_000, save_steps=100_000)
    settings = replace(settings, data=replace(settings.data, workers=2))
    config = tmp_path / "run.yaml"
    config.write_text("task: codec\n" + as_yaml(settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "encodec_fast.cli", "train", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    log = Path(settings.out) / "train.log"
    deadline = time.monotonic() + 300
    while not log.exists() or not log.read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and b"resume=true" in errors
    assert torch.load(Path(settings.out) / "last.pt", weights_only=True)["step"] > 0
    with pytest.raises(ProcessLookupError):  # nor is a worker left
        os.killpg(process.pid, 0)


@pytest.mark.skipif(os.name != "posix", reason="no such signals")
def test_workers_leave_signals_to_the_process_that_trains(tmp_path: Path) -> None:
    wave = np.random.default_rng(1).uniform(-0.5, 0.5, 8000)
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    source = (SourceSettings(str(tmp_path)),)
    settings = DataSettings(source, source, reverb=ReverbSettings(0.0), workers=2)
    before = set(multiprocessing.active_children())
    batches = open_batches(settings, 8000, 1, 2000, 4, 7)
    found = [next(batches) for _ in range(2)]  # one of each worker
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    for worker in workers:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(worker.pid or 0, number)
    found += islice(batches, 30)
    assert all(worker.is_alive() for worker in workers)
    again = islice(open_batches(replace(settings, workers=0), 8000, 1, 2000, 4, 7), 32)
    assert all(torch.equal(a.waves, b.waves) for a, b in zip(found, again, strict=True))
    del batches
    assert not any(worker.is_alive() for worker in workers)


def test_an_error_in_a_worker_is_as_it_is_without(tmp_path: Path) -> None:
    wave = np.zeros(8000)
    wave[0] = 0.5  # nor is it silent as a whole
    soundfile.write(tmp_path / "a.wav", wave, 8000)
    source = (SourceSettings(str(tmp_path)),)
    told = []
    for workers in (0, 2):
        settings = DataSettings(source, source, reverb=ReverbSettings(0.0), workers=workers)
        with pytest.raises(ValueError, match="found nothing usable in 64 draws") as caught:
            list(islice(open_batches(settings, 8000, 1, 2000, 4, 7), 20))
        told.append(str(caught.value))
    assert told[0] == told[1] and "\n" not in told[1]
