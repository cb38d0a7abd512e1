"""Memory: one long recording among many short ones, of any model and source, or a fat extra."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from data_sets import sound_bytes, write_short_files, write_tar
from programs import describe, write_program

HOURS = 3
RATE = 2000
WIDTH = 2
# What the samples of the long recording alone would take, as float32, and what is allowed instead.
WHOLE_MB = HOURS * 3600 * RATE * 4 / 1e6
ALLOWED_MB = 25

PROGRAM = """
import json, sys
from pathlib import Path
import encodec_fast as ef
report = ef.tokenize(sys.argv[1], sys.argv[2], sys.argv[3], threads=2, format="safetensors")
# Of this program alone: ru_maxrss knows the process that it came from, too.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
peak = int(status["VmHWM"].split()[0]) / 1024
print(json.dumps([report.items, report.hours, len(report.failures), peak]))
"""


def tokenize(source: Path, out: Path, program: Path, failures: int = 0) -> tuple[int, float, float]:
    """Items, hours and the peak memory in MB of a run of its own process."""
    command = [sys.executable, "-c", PROGRAM, str(source), str(out), str(program)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    items, hours, failed, peak = json.loads(done.stdout)
    assert failed == failures
    return items, hours, peak


def longer_frames(kind: str) -> tuple[Any, Any]:
    """A tiny model with about as many frames a second as real ones: ten times the hop."""
    header, tensors = describe(kind, width=WIDTH)
    random = np.random.default_rng(0)
    stride = 30
    down, up = header["encoder"][5], header["decoder"][2]
    left, right = (stride, 0) if kind == "constant" else (stride // 2, stride // 2)
    down.update(kernel=2 * stride, stride=stride, pad=[left, right])
    up.update(stride=stride, trim_left=0 if kind == "constant" else stride // 2)
    for name, shape in (
        (down["weight"], (2 * stride * WIDTH, WIDTH)),
        (up["weight"], (2 * WIDTH, stride * WIDTH)),
    ):
        tensors[name] = (random.standard_normal(shape) / 10).astype(np.float32)
    header.update(sample_rate=RATE, hop=2 * stride)
    if kind == "segments":
        header.update(segment_length=2 * RATE, segment_stride=2 * RATE - 80)
    return header, tensors


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", ["constant", "segments"])
def test_one_long_recording_among_short_ones(tmp_path: Path, kind: str) -> None:
    program = write_program(tmp_path / "program.safetensors", *longer_frames(kind))
    write_short_files(tmp_path / "in", 30, RATE)
    _, _, before = tokenize(tmp_path / "in", tmp_path / "short", program)
    noise = np.random.default_rng(0).integers(-9000, 9000, 60 * RATE).astype(np.int16)
    long = tmp_path / "in" / "long.wav"
    with soundfile.SoundFile(long, "w", RATE, 1, "PCM_U8") as file:
        for _ in range(60 * HOURS):
            file.write(noise)
    items, hours, peak = tokenize(tmp_path / "in", tmp_path / "out", program)
    assert items == 31 and hours > HOURS
    assert WHOLE_MB > 3 * ALLOWED_MB
    assert peak < before + ALLOWED_MB, f"{before:.0f} MB grew to {peak:.0f} MB"
    if kind == "constant":
        tar = write_tar(tmp_path / "long.tar", {"long.wav": long.read_bytes()})
        _, _, peak = tokenize(tar, tmp_path / "from_tar", program)
        assert peak < before + ALLOWED_MB, f"{before:.0f} MB grew to {peak:.0f} MB"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")
def test_one_long_mp3_among_short_ones(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.safetensors", *longer_frames("constant"))
    rate = 8000  # the lowest that MP3 has
    for folder, minutes in (("short", 1), ("long", 60)):
        (tmp_path / folder).mkdir()
        write_short_files(tmp_path / folder, 10, RATE)
        tone = 0.5 * np.sin(np.arange(60 * rate) * 0.05)
        with soundfile.SoundFile(tmp_path / folder / "x.mp3", "w", rate, 1) as file:
            for _ in range(minutes):
                file.write(tone)
    _, _, before = tokenize(tmp_path / "short", tmp_path / "out_short", program)
    items, hours, peak = tokenize(tmp_path / "long", tmp_path / "out_long", program)
    assert items == 11 and hours > 1
    assert 3600 * rate * 4 / 1e6 > 3 * ALLOWED_MB
    assert peak < before + ALLOWED_MB, f"{before:.0f} MB grew to {peak:.0f} MB"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's /proc")
def test_a_fat_extra(tmp_path: Path) -> None:
    """A film of 5 GB beside the audio, of which nothing is read; most of the archive is a hole."""
    program = write_program(tmp_path / "program.safetensors", *longer_frames("constant"))
    wav = sound_bytes("x.wav", RATE, 1, 1.0)
    samples = {f"{n:02d}.wav": wav for n in range(20)}
    small = write_tar(tmp_path / "small.tar", samples)
    _, _, before = tokenize(small, tmp_path / "out_small", program)
    film = tarfile.TarInfo("19.mp4")
    film.size = 5 << 30
    head = film.tobuf(tarfile.GNU_FORMAT)
    fat = write_tar(tmp_path / "fat.tar", samples)
    with tarfile.open(fat) as archive:
        archive.getmembers()
        end = archive.offset
    with fat.open("r+b") as file:
        file.seek(end)
        file.write(head)
        file.truncate(end + len(head) + film.size + 1024)
    items, _, peak = tokenize(fat, tmp_path / "out_fat", program, failures=1)
    assert items == 19
    assert peak < before + ALLOWED_MB, f"{before:.0f} MB grew to {peak:.0f} MB"
