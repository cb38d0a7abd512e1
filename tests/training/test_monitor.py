"""What a run tells TensorBoard, read back from its event files."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from encodec_fast.training.monitor import FOLDER, Monitor, spectrogram_levels

RATE = 24000
# The colours from silence to full scale, at 0, 1/6, ... of the range.
BLACK, VIOLET, WHITE = (0, 0, 0), (95, 20, 140), (255, 255, 255)


def events(folder: Path) -> Any:
    everything = {"images": 0, "audio": 0, "scalars": 0}
    return EventAccumulator(str(folder / FOLDER), size_guidance=everything).Reload()


def sine(hertz: float, amplitude: float, seconds: float = 0.5) -> torch.Tensor:
    times = torch.arange(round(seconds * RATE)) / RATE
    return amplitude * torch.sin(2 * torch.pi * hertz * times)


def test_scalars(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, RATE)
    for step in (1, 2):
        monitor.scalars(step, {"loss/mel": 0.5 * step, "loss/adv": torch.tensor(3.0)})
    monitor.close()
    found = events(tmp_path)
    assert sorted(found.Tags()["scalars"]) == ["loss/adv", "loss/mel"]
    assert [(e.step, e.value) for e in found.Scalars("loss/mel")] == [(1, 0.5), (2, 1.0)]
    assert [e.value for e in found.Scalars("loss/adv")] == [3.0, 3.0]


def test_a_resumed_run_has_one_curve(tmp_path: Path) -> None:
    """The killed process had come further than its last checkpoint, of step 20."""
    killed = Monitor(tmp_path, RATE)
    for step in (10, 20, 30, 40):
        killed.scalars(step, {"loss": 1.0})
    killed.close()
    resumed = Monitor(tmp_path, RATE, step=20)
    resumed.scalars(30, {"loss": 2.0})
    resumed.close()
    values = [(e.step, e.value) for e in events(tmp_path).Scalars("loss")]
    assert values == [(10, 1.0), (20, 1.0), (30, 2.0)]


@pytest.mark.parametrize("channels", [1, 2])
def test_audio_has_all_channels(tmp_path: Path, channels: int) -> None:
    wave = torch.stack([sine(440, 0.5), sine(1000, 0.2)])[:channels]
    wave[0, 100] = 3.0
    monitor = Monitor(tmp_path, RATE)
    monitor.audio(7, "speech/decoded", wave)
    monitor.close()
    (event,) = events(tmp_path).Audio("speech/decoded")
    assert (event.step, event.sample_rate, event.length_frames) == (7, RATE, wave.shape[1])
    samples, rate = soundfile.read(io.BytesIO(event.encoded_audio_string), always_2d=True)
    assert rate == RATE
    np.testing.assert_allclose(samples.T, wave.clamp(-1, 1).numpy(), atol=1e-4)


def test_spectrogram_picture(tmp_path: Path) -> None:
    """A loud low sine beside a 60 dB softer high one, and a silent channel below."""
    image = pytest.importorskip("PIL.Image")
    wave = torch.stack([torch.cat([sine(3000, 1.0), sine(9000, 1e-3)]), torch.zeros(RATE)])
    monitor = Monitor(tmp_path, RATE)
    monitor.spectrogram(4, "speech/decoded", wave)
    monitor.close()
    (event,) = events(tmp_path).Images("speech/decoded")
    picture = np.array(image.open(io.BytesIO(event.encoded_image_string)).convert("RGB"))
    assert (event.step, event.height, event.width) == (4, *picture.shape[:2])
    assert picture.shape[0] == 2 * 257
    low, high = 256 - 64, 256 - 192  # rows: 46.875 Hz each, the highest on top
    quarter, three_quarters = picture.shape[1] // 4, 3 * picture.shape[1] // 4
    assert tuple(picture[low, quarter]) == WHITE and tuple(picture[high, quarter]) == BLACK
    np.testing.assert_allclose(picture[high, three_quarters], VIOLET, atol=3)
    assert tuple(picture[low, three_quarters]) == BLACK
    assert (picture[257:] == BLACK).all()


@pytest.mark.parametrize("length", [1, 255, 256, 5000, 640 * 256 - 1, 640 * 256, 500_000])
def test_spectrogram_levels_against_a_loop(length: int) -> None:
    random = np.random.default_rng(2)
    samples = (random.standard_normal((1, length)) * 10 ** random.uniform(-5, 0, length)).astype(
        np.float32
    )
    found = spectrogram_levels(samples)
    padded = np.concatenate([np.zeros(256), samples[0], np.zeros(1024)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    count = -(-length // 256) + 1
    each = -(-count // 640)
    assert found.shape == (257, -(-count // each))
    for column in {0, found.shape[1] // 2, found.shape[1] - 1}:
        powers = []
        for frame in range(column * each, min(count, (column + 1) * each)):
            spectrum = np.fft.rfft(padded[frame * 256 : frame * 256 + 512] * window)
            powers.append((np.abs(spectrum) * 2 / window.sum()) ** 2)
        decibels = 10 * np.log10(np.mean(powers, axis=0) + 1e-12)
        expected = np.clip(255 * (decibels + 90) / 90, 0, 255)[::-1]
        assert np.abs(found[:, column] - expected).max() <= 0.51


def test_what_a_broken_model_decodes_is_no_error(tmp_path: Path) -> None:
    wave = sine(440, 0.5)[None]
    wave[0, ::7] = float("nan")
    wave[0, ::11] = float("inf")
    monitor = Monitor(tmp_path, RATE)
    monitor.audio(1, "decoded", wave)
    monitor.spectrogram(1, "decoded", wave)
    monitor.close()
    found = events(tmp_path)
    samples, _ = soundfile.read(io.BytesIO(found.Audio("decoded")[0].encoded_audio_string))
    assert samples[14] == 0 and samples[22] == 0 and abs(samples[15] - wave[0, 15]) < 1e-4
    assert found.Images("decoded")


@pytest.mark.parametrize("wave", [torch.zeros(5), torch.zeros(1, 0), torch.zeros(1, 1, 5)])
def test_waves_are_checked(tmp_path: Path, wave: torch.Tensor) -> None:
    monitor = Monitor(tmp_path, RATE)
    for write in (monitor.audio, monitor.spectrogram):
        with pytest.raises(ValueError, match=r"wave: expected shape \[channels, samples\]"):
            write(1, "x", wave)
    monitor.close()


def use(monitor: Monitor) -> None:
    monitor.scalars(1, {"loss": 1.0})
    monitor.audio(1, "decoded", sine(440, 0.5)[None])
    monitor.spectrogram(1, "decoded", sine(440, 0.5)[None])
    monitor.close()


def test_without_tensorboard_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    use(Monitor(tmp_path, RATE))
    assert capsys.readouterr().err.splitlines() == [
        "encodec-fast: no TensorBoard events are written: it comes with encodec-fast[train]"
    ]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    use(Monitor(tmp_path, RATE))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("encodec-fast: no more TensorBoard events are written (")


def test_a_full_disk_does_not_end_the_run(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    program = (
        "import resource, sys, time, torch\n"
        "from encodec_fast.training.monitor import Monitor\n"
        "monitor = Monitor(sys.argv[1], 24000)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "for step in range(60):\n"
        "    monitor.audio(step, 'decoded', torch.zeros(1, 24000))\n"
        "    time.sleep(0.01)\n"
        "monitor.close()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no more TensorBoard events are written") == 1
