"""The cache of decoded recordings: what it holds, and that no passing error is kept in it."""

from __future__ import annotations

import errno
import json
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import write_corpus
from test_checkpoint import largest_file

from encodec_fast.training.cache import RecordingCache
from encodec_fast.training.data import DataSettings, prepare
from encodec_fast.training.sources import Recording, SourceSettings, find_recordings

RATE = 8000


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    folder = tmp_path / "audio"
    folder.mkdir()
    write_corpus(folder)
    return find_recordings(SourceSettings(str(folder / "MANIFEST.csv")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.mark.parametrize("channels", [1, 2])
def test_it_holds_every_recording(recordings: list[Recording], folder: Path, channels: int) -> None:
    cache = RecordingCache(recordings, folder, 16000, channels)
    for number, recording in enumerate(recordings):
        x, _ = soundfile.read(recording.path, dtype="float32", always_2d=True)
        expected = x if channels == 2 else x.mean(axis=1, keepdims=True)
        assert np.array_equal(cache.read(number), np.rint(expected * 32767).astype(np.int16))
        assert cache.entries[number].peak == pytest.approx(np.abs(expected).max())
    sent = pickle.dumps(cache)  # to a worker: without the samples, which it maps itself
    assert len(sent) < 5000 and np.array_equal(pickle.loads(sent).read(3), cache.read(3))
    crop = cache.read_crop(3, 100, 0.25)
    start = int(0.25 * (len(cache.read(3)) - 99))
    assert crop.second == start / 16000
    assert np.allclose(crop.wave, cache.read(3)[start : start + 100].T / 32767, atol=1e-7)


def test_it_is_made_once_and_for_its_recordings(recordings: list[Recording], folder: Path) -> None:
    path = RecordingCache(recordings, folder, RATE, 1).path
    made = path.stat().st_mtime_ns
    assert RecordingCache(recordings, folder, RATE, 1).path.stat().st_mtime_ns == made
    assert RecordingCache(recordings[1:], folder, RATE, 1).path != path
    assert not list(folder.glob("*partial*"))
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"expected \d+ bytes, found \d+: remove it"):
        RecordingCache(recordings, folder, RATE, 1)


@pytest.mark.parametrize(
    "content", ["[[0, 16", "[" * 100_000, "[[0, 1]]", "{}", '[["", 1, 0.5, 3]]']
)
def test_a_damaged_list_is_named(recordings: list[Recording], folder: Path, content: str) -> None:
    index = RecordingCache(recordings, folder, RATE, 1).path.with_suffix(".json")
    index.write_text(content)
    with pytest.raises(ValueError, match=r"recordings_8000_1_.*: remove it"):
        RecordingCache(recordings, folder, RATE, 1)


def test_a_full_disk_is_no_fault_of_a_recording(recordings: list[Recording], folder: Path) -> None:
    size = RecordingCache(recordings[:3], folder.parent / "other", RATE, 1).path.stat().st_size
    with largest_file(size), pytest.raises(OSError, match="recordings_8000_1_") as caught:
        RecordingCache(recordings, folder, RATE, 1)
    assert caught.value.errno == errno.EFBIG
    assert not list(folder.iterdir())
    cache = RecordingCache(recordings, folder, RATE, 1)
    assert not any(entry.reason for entry in cache.entries)


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_a_passing_error_is_no_fault_of_a_recording(
    recordings: list[Recording], folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    opened = Path.open

    def refuse(path: Path, *mode: str, **more: str) -> object:
        if path.name == "c.flac":
            raise OSError(number, "passing")
        return opened(path, *mode, **more)  # type: ignore[call-overload]

    with monkeypatch.context() as patched, pytest.raises(OSError, match=r"passing.*c\.flac"):
        patched.setattr(Path, "open", refuse)
        RecordingCache(recordings, folder, RATE, 1)
    assert not list(folder.iterdir())


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that cannot be read")
def test_what_libsndfile_cannot_read_is_told_from_what_is_no_audio(
    recordings: list[Recording], folder: Path
) -> None:
    unreadable = Recording("device", "/proc/self/mem", "sound")  # its first byte is an EIO
    with pytest.raises(OSError, match="device") as caught:
        RecordingCache([*recordings, unreadable], folder, RATE, 1)
    assert caught.value.errno == errno.EIO
    text = Recording("text", __file__, "sound")
    cache = RecordingCache([*recordings, text], folder, RATE, 1)
    assert "Format not recognised" in cache.entries[-1].reason


def test_names_are_any_bytes(recordings: list[Recording], folder: Path) -> None:
    named = [found._replace(name="\udcff.wav") for found in recordings]
    assert RecordingCache(named, folder, RATE, 1).path.exists()
    gone = Recording("no path", "a\0b.wav", "sound")
    assert RecordingCache([*named, gone], folder, RATE, 1).entries[-1].reason


BUILD = """
import sys, time
from pathlib import Path
from encodec_fast.training import cache
from encodec_fast.training.sources import SourceSettings, find_recordings
append = cache.RecordingCache._append
def slow(self, recording, start, target):
    entry = append(self, recording, start, target)
    target.flush()
    time.sleep(30)
    return entry
cache.RecordingCache._append = slow
cache.RecordingCache(find_recordings(SourceSettings(sys.argv[1])), Path(sys.argv[2]), 8000, 1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_what_a_killed_process_leaves_is_removed(
    recordings: list[Recording], folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", BUILD, str(tmp_path / "audio" / "MANIFEST.csv"), str(folder)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not [part for part in folder.glob("*.partial") if part.stat().st_size]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    RecordingCache(recordings, folder, RATE, 1)
    assert len(list(folder.glob("*.partial"))) == 1  # that of a process that is at it
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(folder.glob("*.partial"))) == 1
    RecordingCache(recordings, folder, RATE, 1)
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".s16"]


def test_it_can_be_made_ahead(recordings: list[Recording], folder: Path, tmp_path: Path) -> None:
    source = SourceSettings(str(tmp_path / "audio" / "MANIFEST.csv"))
    settings = DataSettings((source,), (source,), cache=str(folder))
    prepare(settings, RATE, 1, 4000)
    made = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(made) == 2
    prepare(settings, RATE, 1, 2000)
    assert made == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(ValueError, match="too short: expected at least 100 s"):
        prepare(settings, RATE, 1, 100 * RATE)
    index = json.loads(next(folder.glob("*.json")).read_text())
    assert [entry[1] for entry in index] == [2 * RATE] * len(recordings)
