"""Reading any audio in blocks, resampling, and writing with the reference's level rules."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from encodec_fast import audio, audio_writer
from encodec_fast.audio import AudioReader, convert_audio
from encodec_fast.audio_writer import AudioWriter

FloatArray = npt.NDArray[np.float32]


def noise(channels: int, samples: int, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    return (0.2 * rng.standard_normal((channels, samples))).astype(np.float32)


def save(path: Path, wav: FloatArray, rate: int, subtype: str | None = "FLOAT") -> Path:
    soundfile.write(path, wav.T, rate, subtype=subtype)
    return path


def read(source: Any, rate: int, channels: int) -> FloatArray:
    with AudioReader(source, rate, channels) as reader:
        return np.concatenate(list(reader.blocks()), axis=1)


def write(path: Any, wav: FloatArray, rate: int = 24000, cut: int = 1000, **options: Any) -> None:
    with AudioWriter(path, rate, len(wav), **options) as writer:
        for first in range(0, wav.shape[1], cut):
            writer.write(wav[:, first : first + cut])


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("wanted", [1, 2])
def test_channels(tmp_path: Path, channels: int, wanted: int) -> None:
    wav = noise(channels, 70001)
    found = read(save(tmp_path / "a.wav", wav, 24000), 24000, wanted)
    expected = wav
    if channels != wanted:
        mean = wav.astype(np.float64).mean(axis=0)
        expected = np.stack([mean] * wanted)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=1e-7)
    if channels == wanted:
        np.testing.assert_array_equal(found, wav)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_resampling_keeps_length_and_tone(tmp_path: Path, rate: int) -> None:
    time = np.arange(rate * 2 + 17) / rate
    wav = (0.5 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)[None]
    found = read(save(tmp_path / "a.wav", wav, rate), 24000, 1)
    assert abs(found.shape[1] - wav.shape[1] * 24000 / rate) <= 0.5
    middle = np.arange(2000, 44000)
    expected = 0.5 * np.sin(2 * np.pi * 1000 * middle / 24000)
    np.testing.assert_allclose(found[0, middle], expected, atol=1e-4)


@pytest.mark.parametrize("rate", [24000, 44100, 48000])
@pytest.mark.parametrize(("channels", "wanted"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_samples_do_not_depend_on_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, channels: int, wanted: int
) -> None:
    wav = noise(channels, 30011)
    path = save(tmp_path / "a.wav", wav, rate)
    whole = read(path, 24000, wanted)
    np.testing.assert_array_equal(convert_audio(wav, rate, 24000, wanted), whole)
    for block in (257, 5000):
        monkeypatch.setattr(audio, "_BLOCK_SAMPLES", block)
        np.testing.assert_array_equal(read(path, 24000, wanted), whole)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.flac", "PCM_16"), ("a.ogg", "VORBIS"), ("a.opus", "OPUS"), ("a.mp3", None),
     ("a.aiff", None), ("a.w64", None), ("a.wav", "PCM_U8"), ("a.caf", "ALAC_16")],
)  # fmt: skip
def test_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, subtype: str | None
) -> None:
    path = tmp_path / name
    kind = "OGG" if name == "a.opus" else None
    try:
        soundfile.write(path, noise(2, 40000).T, 48000, subtype=subtype, format=kind)
    except (soundfile.LibsndfileError, ValueError):
        pytest.skip("this libsndfile cannot write it")
    expected, _ = soundfile.read(path, dtype="float32", always_2d=True)
    for block in (1 << 17, 1998):
        monkeypatch.setattr(audio, "_BLOCK_SAMPLES", block)
        np.testing.assert_array_equal(read(path, 48000, 2), expected.T)


def test_streams_and_pipes_are_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", noise(2, 9999), 44100)
    expected = read(path, 24000, 1)
    np.testing.assert_array_equal(read(io.BytesIO(path.read_bytes()), 24000, 1), expected)
    if not hasattr(os, "mkfifo"):
        return
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    feeder.start()
    np.testing.assert_array_equal(read(pipe, 24000, 1), expected)
    feeder.join()


def test_a_wav_of_unknown_length(tmp_path: Path) -> None:
    """What programs write to a pipe: the sizes in the header are all ones."""
    path = save(tmp_path / "a.wav", noise(1, 5000), 24000, "PCM_16")
    data = bytearray(path.read_bytes())
    expected = read(path, 24000, 1)
    data[4:8] = data[40:44] = b"\xff" * 4
    np.testing.assert_array_equal(read(io.BytesIO(data), 24000, 1), expected)


def test_a_flac_of_unknown_length(tmp_path: Path) -> None:
    path = save(tmp_path / "a.flac", noise(1, 5000), 24000, "PCM_16")
    expected = read(path, 24000, 1)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with AudioReader(path, 24000, 1) as reader:
        assert reader.duration == 0
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks()), axis=1), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_must_be_finite(tmp_path: Path, value: float) -> None:
    wav = noise(2, 150000)
    wav[1, 140007] = value
    path = save(tmp_path / "a.wav", wav, 48000)
    with pytest.raises(ValueError, match=r"a\.wav: sample 140007 of channel 1 is -?(nan|inf)"):
        read(path, 24000, 1)


def test_empty_audio(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.wav: no audio"):
        read(save(tmp_path / "a.wav", np.zeros((1, 0), np.float32), 24000), 24000, 1)
    with pytest.raises(ValueError, match=r"b\.wav: too short to be resampled \(1 samples at 96000"):
        read(save(tmp_path / "b.wav", noise(1, 1), 96000), 24000, 1)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7, 1001, 1002, 1003])
def test_resampled_lengths_are_rounded_half_up(length: int) -> None:
    assert convert_audio(noise(1, length), 96000, 24000, 1).shape == (1, (length + 2) // 4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("channels", "rate"), [(2, 24000), (3, 24000), (1, 44100), (2, 44100)])
def test_samples_that_overflow_when_converted(tmp_path: Path, channels: int, rate: int) -> None:
    signs = np.where(np.arange(40000) // 100 % 2, 1, -1)
    wav = (signs * np.full((channels, 1), 3.4e38)).astype(np.float32)
    with pytest.raises(ValueError, match=r"a\.wav: too loud"):
        read(save(tmp_path / "a.wav", wav, rate), 24000, 1)
    assert read(tmp_path / "a.wav", rate, channels).shape == wav.shape


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    folder.mkdir()
    for name in (b"\xff\xfe.wav", b"\xff.flac"):
        path = folder / os.fsdecode(name)
        write(path, noise(1, 2000))
        assert read(path, 24000, 1).shape == (1, 2000)


@pytest.mark.parametrize("value", [b"bytes.wav", None, 5, io.StringIO()])
def test_neither_path_nor_stream(value: Any) -> None:
    found = type(value).__name__
    message = f"expected a path or a binary stream, found {found}"
    with pytest.raises(ValueError, match=f"source: {message}"):
        read(value, 24000, 1)
    with pytest.raises(ValueError, match=f"target: {message}"):
        write(value, noise(1, 10))


def test_unreadable_sources(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no audio at all" * 10)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "a.raw").write_bytes(bytes(100))
    save(tmp_path / "slow.wav", noise(1, 10), 10)
    for name, error in [
        ("absent.wav", FileNotFoundError),
        ("text.wav", OSError),
        ("empty.wav", OSError),
        ("a.raw", ValueError),
        ("slow.wav", ValueError),
        ("", OSError),
    ]:
        with pytest.raises(error, match=name or tmp_path.name) as caught:
            read(tmp_path / name, 24000, 1)
        assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="<stream>"):
        read(io.BytesIO(b"RIFFxxxx"), 24000, 1)


def test_a_truncated_file_gives_what_it_holds(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", noise(1, 5000), 24000, "PCM_16")
    expected = read(path, 24000, 1)
    path.write_bytes(path.read_bytes()[:-2000])
    np.testing.assert_array_equal(read(path, 24000, 1), expected[:, :4000])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.WAV"])
def test_sixteen_bit_output_is_clipped(tmp_path: Path, name: str) -> None:
    wav = noise(2, 5000) * 4
    write(tmp_path / name, wav)
    found, rate = soundfile.read(tmp_path / name, dtype="int16", always_2d=True)
    assert rate == 24000
    np.testing.assert_array_equal(found.T, np.rint(np.clip(wav, -0.99, 0.99) * 32768))
    assert soundfile.info(tmp_path / name).subtype == "PCM_16"


@pytest.mark.parametrize(("level", "gain"), [(4.0, 0.99 / 4), (0.5, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("encoding", ["pcm16", "float32"])
def test_rescaling(tmp_path: Path, level: float, gain: float, encoding: str) -> None:
    wav = noise(2, 100000)
    wav *= np.float32(level / np.abs(wav).max())
    write(tmp_path / "a.wav", wav, encoding=encoding, rescale=True)
    found, _ = soundfile.read(tmp_path / "a.wav", dtype="float32", always_2d=True)
    np.testing.assert_allclose(found.T, wav * gain, atol=1e-5 + (encoding == "pcm16") / 65536)


def test_float_output_is_exact(tmp_path: Path) -> None:
    wav = noise(1, 5000) * 4
    write(tmp_path / "a.wav", wav, encoding="float32")
    found, _ = soundfile.read(tmp_path / "a.wav", dtype="float32", always_2d=True)
    np.testing.assert_array_equal(found.T, wav)


def test_float_output_does_not_tell_the_time(tmp_path: Path) -> None:
    for channels in (1, 2):
        write(tmp_path / "a.wav", noise(channels, 100), encoding="float32", overwrite=True)
        data = (tmp_path / "a.wav").read_bytes()
        assert data[data.index(b"PEAK") + 12 :][:4] == bytes(4)


def test_how_output_is_cut_does_not_matter(tmp_path: Path) -> None:
    for rescale in (False, True):
        files = []
        for cut in (1, 333, 5000):
            write(tmp_path / "a.wav", noise(2, 2000) * 4, cut=cut, rescale=rescale, overwrite=True)
            files.append((tmp_path / "a.wav").read_bytes())
        assert files[0] == files[1] == files[2]


def test_a_stream_gets_a_wav(tmp_path: Path) -> None:
    stream = io.BytesIO()
    write(stream, noise(1, 2000))
    write(tmp_path / "a.wav", noise(1, 2000))
    assert stream.getvalue() == (tmp_path / "a.wav").read_bytes()


def test_long_output_is_an_rf64(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", noise(1, 100), length=1 << 31)
    assert (tmp_path / "a.wav").read_bytes()[:4] == b"RF64"
    assert read(tmp_path / "a.wav", 24000, 1).shape == (1, 100)


def test_too_long_for_a_wav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_writer, "_WAV_LIMIT", 200)
    write(tmp_path / "a.wav", noise(1, 100))
    write(tmp_path / "a.flac", noise(1, 101))
    with pytest.raises(ValueError, match=r"b\.wav: longer"):
        write(tmp_path / "b.wav", noise(1, 101))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("a.mp3", {}, ValueError),
        ("a", {}, ValueError),
        ("a.flac", {"encoding": "float32"}, ValueError),
        ("old.wav", {}, FileExistsError),
        ("absent/a.wav", {}, FileNotFoundError),
        ("folder.wav", {"overwrite": True}, IsADirectoryError),
    ],
)
def test_targets_that_are_refused(
    tmp_path: Path, name: str, options: dict[str, Any], error: type[Exception]
) -> None:
    (tmp_path / "old.wav").write_text("old")
    (tmp_path / "folder.wav").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=Path(name).name):
        write(tmp_path / name, noise(1, 10), **options)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "old.wav").read_text() == "old"


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_error_leaves_nothing(tmp_path: Path, rescale: bool, value: float) -> None:
    wav = noise(1, 5000)
    wav[0, 4500] = value
    with pytest.raises(ValueError, match="sample 4500 of channel 0"):
        write(tmp_path / "a.wav", wav, rescale=rescale)
    assert not list(tmp_path.iterdir())


def test_a_link_stays_a_link_and_permissions_are_kept(tmp_path: Path) -> None:
    (tmp_path / "real.wav").touch(mode=0o604)
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    old = os.umask(0o027)
    try:
        write(tmp_path / "link.wav", noise(1, 10), overwrite=True)
        write(tmp_path / "new.wav", noise(1, 10))
    finally:
        os.umask(old)
    assert (tmp_path / "link.wav").is_symlink()
    assert read(tmp_path / "real.wav", 24000, 1).shape == (1, 10)
    assert (tmp_path / "real.wav").stat().st_mode & 0o777 == 0o604
    assert (tmp_path / "new.wav").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_devices_are_written_not_replaced(tmp_path: Path) -> None:
    write("/dev/null", noise(1, 10))
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError):
        write("/dev/full", noise(1, 10))
