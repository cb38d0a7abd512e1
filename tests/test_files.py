"""Whole files against the codec's methods for arrays; no output after an error."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import encodec_fast.audio
from encodec_fast import ecdc, files, info
from encodec_fast.codec import Codec
from encodec_fast.output import OutputFile
from encodec_fast.store import ModelNotFoundError

NAMES = ("encodec_24khz", "encodec_48khz")
# 48000 samples of the 48 kHz model make a second segment of two frames.
LENGTHS = (1, 320, 321, 48000, 100001)


@pytest.fixture(autouse=True)
def models(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny models are the ones in the models folder."""
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tiny_models))


def recording(path: Path, codec: Codec, length: int, rate: int | None = None) -> np.ndarray:
    """Write noise as float samples; returns float32 [channels, length]."""
    rng = np.random.default_rng(length)
    wav = (0.2 * rng.standard_normal((codec.channels, length))).astype(np.float32)
    soundfile.write(path, wav.T, rate or codec.sample_rate, subtype="FLOAT", format="WAV")
    return wav


def audio(path: Path) -> np.ndarray:
    wav, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(wav.T)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", LENGTHS)
def test_files_equal_arrays(tmp_path: Path, name: str, length: int) -> None:
    codec = Codec.load(name)
    wav = recording(tmp_path / "a.wav", codec, length)
    done = files.compress_file(codec, tmp_path / "a.wav", tmp_path / "a.ecdc", bandwidth=6.0)
    assert done.audio_length == length
    data = (tmp_path / "a.ecdc").read_bytes()
    assert data == codec.compress(wav, bandwidth=6.0)
    expected = codec.decompress(data)
    assert expected.shape == wav.shape
    done = files.decompress_file(tmp_path / "a.ecdc", tmp_path / "b.wav", encoding="float32")
    np.testing.assert_array_equal(audio(tmp_path / "b.wav"), expected)
    assert done == (length, codec.sample_rate, codec.channels, float(np.abs(expected).max()), ())
    files.roundtrip_file(codec, tmp_path / "a.wav", tmp_path / "c.wav", encoding="float32")
    assert (tmp_path / "c.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("name", NAMES)
def test_blocks_and_threads_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    codec = Codec.load(name, threads=3)
    recording(tmp_path / "a.wav", codec, 200003, rate=44100)
    results = []
    for block in (1 << 17, 12345):
        monkeypatch.setattr(encodec_fast.audio, "_BLOCK_SAMPLES", block)
        for threads in (1, 3):
            codec = Codec.load(name, threads=threads)
            data, wav = io.BytesIO(), io.BytesIO()
            files.compress_file(codec, tmp_path / "a.wav", data)
            files.decompress_file(io.BytesIO(data.getvalue()), wav, threads=threads)
            results.append((data.getvalue(), wav.getvalue()))
    assert all(result == results[0] for result in results)


def test_streams_as_source_and_target(tmp_path: Path) -> None:
    codec = Codec.load(NAMES[0])
    recording(tmp_path / "a.wav", codec, 5000)
    files.compress_file(codec, tmp_path / "a.wav", tmp_path / "a.ecdc")
    stream = io.BytesIO()
    files.compress_file(codec, io.BytesIO((tmp_path / "a.wav").read_bytes()), stream)
    assert stream.getvalue() == (tmp_path / "a.ecdc").read_bytes()


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    codec = Codec.load(NAMES[1])
    recording(tmp_path / "a.wav", codec, 100001)
    seen: list[tuple[float, float | None]] = []
    files.compress_file(
        codec, tmp_path / "a.wav", tmp_path / "a.ecdc", progress=lambda *step: seen.append(step)
    )
    assert seen[-1] == (100001 / 48000, 100001 / 48000)
    files.decompress_file(
        tmp_path / "a.ecdc", tmp_path / "b.wav", progress=lambda *step: seen.append(step)
    )
    assert seen == sorted(seen[:3]) + sorted(seen[3:])


def test_rescale_keeps_the_shape(tmp_path: Path) -> None:
    codec = Codec.load(NAMES[0])
    wav = recording(tmp_path / "a.wav", codec, 5000)
    scaled = codec.decompress(codec.compress(wav))
    files.compress_file(codec, tmp_path / "a.wav", tmp_path / "a.ecdc")
    files.decompress_file(tmp_path / "a.ecdc", tmp_path / "b.wav", encoding="float32", rescale=True)
    gain = np.float32(min(1, 0.99 / np.abs(scaled).max()))
    np.testing.assert_allclose(audio(tmp_path / "b.wav"), scaled * gain, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_info(tmp_path: Path, name: str) -> None:
    codec = Codec.load(name)
    recording(tmp_path / "a.wav", codec, 96000)
    files.compress_file(codec, tmp_path / "a.wav", tmp_path / "a.ecdc", bandwidth=6.0, version=0)
    size = (tmp_path / "a.ecdc").stat().st_size
    about = info.info(tmp_path / "a.ecdc")
    assert (about.model, about.audio_length, about.version) == (name, 96000, 0)
    assert about.n_codebooks == codec.n_q(6.0)
    assert about.file_size == size
    assert about.duration == 96000 / codec.sample_rate
    assert about.kbps == pytest.approx(6.0, rel=0.03)
    assert about.ratio == 96000 * codec.channels * 2 / size
    data = (tmp_path / "a.ecdc").read_bytes()
    assert info.info(io.BytesIO(data + b"more")).payload_size == about.payload_size
    with pytest.raises(EOFError, match="truncated"):
        info.info(io.BytesIO(data[:-1]))


def test_info_without_the_model() -> None:
    about = info.info(io.BytesIO(ecdc.Header("unknown", 5, 1).to_bytes() + b"ab"))
    assert (about.audio_length, about.payload_size, about.duration) == (5, 2, None)
    with pytest.raises(ModelNotFoundError):
        info.info(io.BytesIO(ecdc.Header("unknown", 5, 1).to_bytes() + b"ab"), model="other")


@pytest.mark.parametrize("name", ["../x", "", "a b", "\x1b[31m", "x" * 5000])
def test_info_of_a_file_whose_model_has_no_valid_name(name: str) -> None:
    about = info.info(io.BytesIO(ecdc.Header(name, 5, 1).to_bytes() + b"ab"))
    assert (about.model, about.payload_size, about.duration) == (name, 2, None)


def test_info_counts_the_bytes_of_the_file() -> None:
    text = b'{ "m" : "unknown", "al" : 5, "nc" : 1, "lm" : false, "more" : [1, 2, 3] }'
    data = struct.pack(">4sBI", b"ECDC", 0, len(text)) + text + b"ab"
    assert info.info(io.BytesIO(data)).file_size == len(data)


def test_another_model_than_the_file_names(tmp_path: Path) -> None:
    data = ecdc.Header("\x1b[31m" * 1000, 5, 1).to_bytes()
    with pytest.raises(ValueError, match="written by model") as caught:
        files.decompress_file(io.BytesIO(data), tmp_path / "a.wav", model=NAMES[0])
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_info_of_a_file_with_a_language_model() -> None:
    data = ecdc.Header("encodec_24khz", 24000, 8, True).to_bytes() + bytes(500)
    about = info.info(io.BytesIO(data))
    assert about.entropy == "lm"
    assert about.kbps == 4.0


def expect_nothing(folder: Path, error: type[Exception] | tuple[Any, ...], call: Any) -> str:
    """The call raises and leaves the folder as it was; returns the message."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(error) as caught:
        call()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("rescale", [False, True])
def test_bad_compressed_files_leave_nothing(tmp_path: Path, rescale: bool) -> None:
    codec = Codec.load(NAMES[1])
    recording(tmp_path / "a.wav", codec, 50000)
    files.compress_file(codec, tmp_path / "a.wav", tmp_path / "a.ecdc", version=0)
    good = (tmp_path / "a.ecdc").read_bytes()
    start = len(ecdc.Header(NAMES[1], 50000, 4).to_bytes())
    nan = struct.pack(">f", float("nan"))
    for data, error, words in [
        (good[:-1], EOFError, "truncated"),
        (good[:20], EOFError, "truncated"),
        (b"", EOFError, "truncated"),
        (b"RIFF" + good, ValueError, "not an ECDC file"),
        (good[:start] + nan + good[start + 4 :], ValueError, "scale"),
        (good.replace(b"48khz", b"49khz"), ValueError, "encodec_49khz not found"),
        (good.replace(b"48khz", b"/../x"), ValueError, "not a model name"),
        (good.replace(b'"nc": 4', b'"nc":99'), ValueError, "99 codebooks"),
        (good.replace(b"false", b"true "), ValueError, "language model"),
    ]:
        (tmp_path / "bad.ecdc").write_bytes(data)
        target = tmp_path / "b.wav"

        def call(target: Path = target) -> None:
            files.decompress_file(tmp_path / "bad.ecdc", target, rescale=rescale)

        assert words in expect_nothing(tmp_path, error, call)


def test_bad_arguments_leave_nothing(tmp_path: Path) -> None:
    codec = Codec.load(NAMES[0])
    source, target = tmp_path / "a.wav", tmp_path / "a.ecdc"
    wav = recording(source, codec, 50000)
    assert "1.5, 3, 6, 12, 24" in expect_nothing(
        tmp_path, ValueError, lambda: files.compress_file(codec, source, target, bandwidth=5.0)
    )
    for make in (lambda: wav[:, :0], lambda: np.where(wav == wav[0, 40000], np.nan, wav)):
        soundfile.write(tmp_path / "bad.wav", make().T, 24000, subtype="FLOAT")
        expect_nothing(
            tmp_path,
            ValueError,
            lambda: files.compress_file(codec, tmp_path / "bad.wav", target),
        )
    target.write_text("kept")
    expect_nothing(tmp_path, FileExistsError, lambda: files.compress_file(codec, source, target))
    files.compress_file(codec, source, target, overwrite=True)
    (tmp_path / "b.wav").write_text("kept")
    expect_nothing(
        tmp_path, FileExistsError, lambda: files.decompress_file(target, tmp_path / "b.wav")
    )
    expect_nothing(
        tmp_path, FileNotFoundError, lambda: files.decompress_file(tmp_path / "no", source)
    )


def test_a_file_that_came_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    output = OutputFile(path)
    output.path.write_text("late")
    path.write_text("kept")
    with pytest.raises(FileExistsError, match=r"a exists already"):
        output._move()  # past the check that commit makes first
    output.discard()
    assert path.read_text() == "kept"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with OutputFile(tmp_path / "a") as output:
        output.path.write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_the_input_is_never_the_output(tmp_path: Path) -> None:
    codec = Codec.load(NAMES[0])
    source, link = tmp_path / "a.wav", tmp_path / "link.wav"
    recording(source, codec, 500)
    link.symlink_to(source)
    packed = tmp_path / "packed.wav"  # a compressed file under a name that audio may have
    files.compress_file(codec, source, packed)

    def opened(call: Any) -> None:
        with source.open("rb") as stream:
            call(codec, stream, source, overwrite=True)

    for call in (
        lambda: files.compress_file(codec, source, source, overwrite=True),
        lambda: files.compress_file(codec, link, source, overwrite=True),
        lambda: files.roundtrip_file(codec, str(source), link, overwrite=True),
        lambda: files.decompress_file(packed, packed, overwrite=True),
        lambda: opened(files.compress_file),
        lambda: opened(files.roundtrip_file),
    ):
        assert "is the input itself" in expect_nothing(tmp_path, ValueError, call)


@pytest.mark.parametrize("threads", [1, 2])
def test_audio_that_the_model_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    codec = Codec.load(NAMES[1], threads=threads)
    wav = np.full((200000, 2), 3e38, np.float32)
    soundfile.write(tmp_path / "a.wav", wav, 48000, subtype="FLOAT")
    for call, target in ((files.compress_file, "a.ecdc"), (files.roundtrip_file, "b.wav")):
        message = expect_nothing(
            tmp_path,
            ValueError,
            lambda call=call, target=target: call(codec, tmp_path / "a.wav", tmp_path / target),
        )
        assert message.startswith(f"{tmp_path / 'a.wav'}: too loud")


def test_neither_path_nor_stream(tmp_path: Path) -> None:
    codec = Codec.load(NAMES[0])
    bad: Any = b"bytes"
    for call in (
        lambda: files.decompress_file(bad, tmp_path / "a.wav"),
        lambda: info.info(bad),
        lambda: files.compress_file(codec, bad, tmp_path / "a.ecdc"),
        lambda: files.roundtrip_file(codec, bad, tmp_path / "a.wav"),
    ):
        message = expect_nothing(tmp_path, ValueError, call)
        assert message == "source: expected a path or a binary stream, found bytes"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    codec = Codec.load(NAMES[0])
    recording(tmp_path / "a.wav", codec, 500)
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(PermissionError, match=r"locked/a\.ecdc"):
        files.compress_file(codec, tmp_path / "a.wav", tmp_path / "locked" / "a.ecdc")


@pytest.mark.parametrize("name", NAMES)
@settings(
    derandomize=True,
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.filterwarnings("ignore::encodec_fast.DamageWarning")
@pytest.mark.parametrize("version", [0, 1])
def test_damaged_files_never_crash(
    tmp_path: Path, name: str, version: int, data: st.DataObject
) -> None:
    """Decoding changed bytes gives audio of the promised length or a clear error and no file."""
    codec = Codec.load(name)
    rng = np.random.default_rng(0)
    wav = (0.2 * rng.standard_normal((codec.channels, 2000))).astype(np.float32)
    file = bytearray(codec.compress(wav, bandwidth=3.0, version=version))
    for _ in range(data.draw(st.integers(1, 3))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    target = tmp_path / "a.wav"
    target.unlink(missing_ok=True)
    try:
        done = files.decompress_file(io.BytesIO(file), target)
    except (ValueError, EOFError, OSError) as error:
        assert "\n" not in str(error)
        assert not list(tmp_path.iterdir())
    else:
        assert audio(target).shape == (done.channels, done.audio_length)
