"""Version 1 on the command line: entropy modes, ranges, damage with exit status 3, pipes."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from vectors import make

from encodec_fast import cli

TINY = "tiny_reflect"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder with a recording `a.wav`; the models of the vectors are installed."""
    models = tmp_path / "models"
    models.mkdir()
    for path in Path(make.__file__).parent.glob("*.safetensors"):
        shutil.copy(path, models)
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(models))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    walk = np.cumsum(np.random.default_rng(0).standard_normal(200_000)) / 2000
    soundfile.write("a.wav", np.clip(walk, -0.9, 0.9), 8000, subtype="PCM_16")
    return work


def run(*arguments: str) -> int:
    return cli.main([*arguments])


@pytest.mark.parametrize("entropy", ["none", "static", "lm"])
def test_entropy_modes(entropy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compress", "a.wav", "b.ecdc", "-m", TINY, "--entropy", entropy) == 0
    assert run("info", "b.ecdc") == 0
    shown = capsys.readouterr().out
    mode = {"none": "", "static": ", static tables", "lm": ", language model"}[entropy]
    assert f"codebooks  2{mode}\nchunks     3 of 9.99975 s\n" in shown
    assert run("decompress", "b.ecdc", "b.wav") == 0
    assert run("roundtrip", "a.wav", "c.wav", "-m", TINY) == 0
    assert Path("b.wav").read_bytes() == Path("c.wav").read_bytes()


def test_the_models_command_does_not_take_entropy_models_for_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("models") == 0
    printed = capsys.readouterr()
    assert printed.out.count("tiny_") == 2 and printed.err == ""


def test_a_range() -> None:
    assert run("compress", "a.wav", "-m", TINY, "--entropy", "lm") == 0
    assert run("decompress", "a.ecdc", "all.wav") == 0
    part = ("--start", "12.5", "--duration", "2", "--exact")
    assert run("decompress", "a.ecdc", "part.wav", *part) == 0
    whole, part_samples = (soundfile.read(name)[0] for name in ("all.wav", "part.wav"))
    assert np.array_equal(part_samples, whole[100_000:116_000])


def test_damage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compress", "a.wav", "-m", TINY) == 0
    good = Path("a.ecdc").read_bytes()
    broken = bytearray(good)
    broken[len(good) // 2] ^= 1
    Path("bad.ecdc").write_bytes(broken)
    capsys.readouterr()
    assert run("decompress", "bad.ecdc") == 3
    printed = capsys.readouterr().err
    assert printed.endswith("warning: bad.ecdc: damaged, lost 10.00 s to 20.00 s\n")
    assert soundfile.info("bad_decompressed.wav").frames == 200_000
    Path("bad_decompressed.wav").unlink()
    assert run("decompress", "--strict", "bad.ecdc") == 1
    assert "error: bad.ecdc: damaged" in capsys.readouterr().err
    assert not Path("bad_decompressed.wav").exists()
    Path("cut.ecdc").write_bytes(good[: len(good) // 2])
    assert run("info", "cut.ecdc") == 0
    assert "state      damaged, without an end" in capsys.readouterr().out
    assert run("decompress", "cut.ecdc") == 3
    assert "lost 10.00 s to the end" in capsys.readouterr().err
    Path("none.ecdc").write_bytes(good[:90])
    assert run("decompress", "none.ecdc") == 1
    assert "no chunk is intact" in capsys.readouterr().err


def test_a_pipe_of_the_command_line() -> None:
    pcm = (soundfile.read("a.wav", dtype="int16")[0][:30_000]).tobytes()
    command = [sys.executable, "-m", "encodec_fast.cli", "stream"]
    options = ["-m", TINY, "--rate", "8000", "--channels", "1", "--entropy", "static"]
    encoded = subprocess.run([*command, "encode", *options], input=pcm, capture_output=True)
    assert (encoded.returncode, encoded.stderr) == (0, b"")
    Path("live.ecdc").write_bytes(encoded.stdout)
    decoded = subprocess.run([*command, "decode"], input=encoded.stdout, capture_output=True)
    assert (decoded.returncode, decoded.stderr) == (0, b"")
    assert run("decompress", "live.ecdc", "live.wav") == 0
    live = np.frombuffer(decoded.stdout, np.int16)
    assert np.array_equal(live[:30_000], soundfile.read("live.wav", dtype="int16")[0])
    assert run("info", "live.ecdc", "--json") == 0
    damaged = bytearray(encoded.stdout)
    damaged[-200] ^= 8
    decoded = subprocess.run([*command, "decode"], input=damaged, capture_output=True)
    assert decoded.returncode == 3 and b"warning: stream: damaged, lost" in decoded.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encode", "-m", TINY, "--rate", "10"], "sample rate 10 Hz"),
        (["encode", "-m", TINY, "--channels", "0"], "channels"),
        (["encode", "-m", TINY, "--chunk-ms", "-1"], "chunk"),
        (["encode", "-m", "nobody"], "model nobody not found"),
        (["decode"], "truncated"),
    ],
)
def test_bad_streams(
    arguments: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = SimpleNamespace(buffer=io.BytesIO(), isatty=lambda: False, flush=lambda: None)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    monkeypatch.setattr(sys, "stdout", out)
    assert run("stream", *arguments) == 1
    assert words in capsys.readouterr().err
    assert out.buffer.getvalue() == b""


def test_info_of_an_empty_stream(capsys: pytest.CaptureFixture[str]) -> None:
    from encodec_fast.codec import Codec

    file = io.BytesIO()
    Codec.load(TINY).piece_writer(2)(file).finish(0)
    Path("e.ecdc").write_bytes(file.getvalue())
    assert run("info", "e.ecdc") == 0
    shown = capsys.readouterr().out
    assert "samples    0" in shown and "import" not in shown


def test_metadata_is_shown_harmlessly(capsys: pytest.CaptureFixture[str]) -> None:
    from encodec_fast.codec import Codec

    codec = Codec.load(TINY)
    wav = np.zeros((1, 100), np.float32)
    Path("m.ecdc").write_bytes(codec.compress(wav, metadata={"\x1b[31m": "a\nb\x07"}))
    assert run("info", "m.ecdc") == 0
    shown = capsys.readouterr().out
    assert "metadata   \\x1b[31m: a b\\x07\n" in shown
    assert run("info", "m.ecdc", "--json") == 0
    assert json.loads(capsys.readouterr().out)["metadata"] == {"\x1b[31m": "a\nb\x07"}
