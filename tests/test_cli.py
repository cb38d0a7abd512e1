"""The command lines: what they write, what they print, and how they fail.

Longer than 350 lines: each way to fail is a short test of its own, on the same fixtures.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny import save_tiny_checkpoint

from encodec_fast import __main__ as reference
from encodec_fast import cli, console, ecdc, store
from encodec_fast.codec import Codec
from encodec_fast.program import is_program

TINY = "encodec_24khz"


@pytest.fixture(autouse=True)
def folder(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a recording `a.wav`; the tiny models are installed."""
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tiny_models))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    soundfile.write("a.wav", 0.1 * rng.standard_normal((30000, 2)), 44100, subtype="PCM_16")
    return tmp_path


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with status 1, one line on stderr and no change of files."""

    def run(*arguments: str, main: Callable[[list[str]], int] = cli.main) -> str:
        before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
        capsys.readouterr()
        assert main(list(arguments)) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("encodec-fast: error: ")
        assert printed.err.count("\n") == 1
        assert {p: p.read_bytes() for p in Path().iterdir() if p.is_file()} == before
        return printed.err

    return run


def spawn(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "encodec_fast.cli", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)


def names() -> set[str]:
    return {path.name for path in Path().iterdir()}


def test_compress_and_decompress() -> None:
    assert cli.main(["compress", "a.wav", "-m", TINY]) == 0
    assert cli.main(["decompress", "a.ecdc"]) == 0
    assert names() == {"a.wav", "a.ecdc", "a_decompressed.wav"}
    about = soundfile.info("a_decompressed.wav")
    assert (about.samplerate, about.channels, about.subtype) == (24000, 1, "PCM_16")
    assert about.frames == round(30000 * 24000 / 44100)


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["compress", "a.wav", "b.ecdc", "-m", TINY, "-b", "1.5", "--container", "0"]) == 0
    )
    assert cli.main(["info", "b.ecdc", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["file"], about["model"], about["n_codebooks"]) == ("b.ecdc", TINY, 2)
    assert about["kbps"] == pytest.approx(1.5, rel=0.03)
    assert cli.main(["decompress", "b.ecdc", "b.flac", "-m", TINY]) == 0
    assert soundfile.info("b.flac").format == "FLAC"
    assert cli.main(["decompress", "b.ecdc", "b.wav", "--float", "-r", "-t", "2"]) == 0
    assert soundfile.info("b.wav").subtype == "FLOAT"


def test_roundtrip() -> None:
    assert cli.main(["roundtrip", "a.wav", "-m", TINY]) == 0
    assert cli.main(["compress", "a.wav", "-m", TINY]) == 0
    assert cli.main(["decompress", "a.ecdc"]) == 0
    assert Path("a_roundtrip.wav").read_bytes() == Path("a_decompressed.wav").read_bytes()


@pytest.mark.parametrize("command", ["compress", "decompress", "roundtrip"])
def test_existing_output_needs_force(command: str, error: Callable[..., str]) -> None:
    assert cli.main(["compress", "a.wav", "-m", TINY]) == 0
    source = "a.ecdc" if command == "decompress" else "a.wav"
    target = "out.ecdc" if command == "compress" else "out.wav"
    Path(target).write_text("kept")
    assert f"{target} exists already" in error(command, source, target, "-m", TINY)
    assert cli.main([command, source, target, "-m", TINY, "-f"]) == 0
    assert Path(target).read_bytes() != b"kept"


def test_clipping_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["compress", "a.wav", "-m", TINY]) == 0
    monkeypatch.setattr(console, "PEAK_LIMIT", 0.0)
    cases: tuple[tuple[list[str], bool], ...] = (([], True), (["-r"], False), (["--float"], False))
    for options, warned in cases:
        assert cli.main(["decompress", "a.ecdc", "-f", *options]) == 0
        assert ("warning: clipped" in capsys.readouterr().err) == warned


def test_info_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compress", "a.wav", "-m", TINY]) == 0
    assert cli.main(["info", "a.ecdc"]) == 0
    printed = capsys.readouterr().out
    assert "duration   0.680 s (24000 Hz, mono)" in printed
    assert "samples    16327" in printed


def test_bad_input(error: Callable[..., str]) -> None:
    assert cli.main(["compress", "a.wav", "-m", TINY, "--container", "0"]) == 0
    good = Path("a.ecdc").read_bytes()
    Path("short.ecdc").write_bytes(good[:-1])
    Path("foreign.ecdc").write_bytes(Path("a.wav").read_bytes())
    Path("other.ecdc").write_bytes(good.replace(b"24khz", b"25khz"))
    Path("empty.wav").touch()
    soundfile.write("silent.wav", np.zeros((0, 1)), 24000)
    soundfile.write("nan.wav", np.array([0.0, np.nan]), 24000, subtype="FLOAT")
    assert "short.ecdc: truncated" in error("decompress", "short.ecdc")
    assert "short.ecdc: truncated" in error("info", "short.ecdc")
    assert "foreign.ecdc: not an ECDC file" in error("decompress", "foreign.ecdc")
    assert "encodec-fast models import" in error("decompress", "other.ecdc")
    assert "absent.wav: No such file" in error("compress", "absent.wav", "-m", TINY)
    assert "empty.wav: " in error("compress", "empty.wav", "-m", TINY)
    assert "silent.wav: no audio" in error("compress", "silent.wav", "-m", TINY)
    assert "sample 1 of channel 0 is nan" in error("compress", "nan.wav", "-m", TINY)
    assert "1.5, 3, 6, 12, 24 kbps" in error("compress", "a.wav", "x", "-m", TINY, "-b", "5")
    assert "absent/a.ecdc" in error("compress", "a.wav", "absent/a.ecdc", "-m", TINY)
    assert "model nobody not found" in error("compress", "a.wav", "-m", "nobody")
    assert "threads" in error("compress", "a.wav", "x", "-m", TINY, "-t", "0")
    assert "a.wav" in error("compress", "a.wav", "x", "-m", "./a.wav")
    assert "no program file" in error("compress", "a.wav", "x", "-m", "./none")
    assert ".wav or .flac" in error("decompress", "a.ecdc", "a.mp3")


def test_compress_writes_no_audio(error: Callable[..., str]) -> None:
    assert cli.main(["compress", "a.wav", "-m", TINY]) == 0
    for target in ("a.wav", "b.WAV", "b.flac", "b.mp3", "b.ogg"):
        assert "encodec-fast roundtrip" in error("compress", "-f", "a.wav", target, "-m", TINY)
    Path("x").write_bytes(Path("a.wav").read_bytes())
    assert "x: is the input itself" in error("compress", "-f", "x", "x", "-m", TINY)


def test_a_folder_as_input(error: Callable[..., str]) -> None:
    for command in ("compress", "decompress", "roundtrip"):
        assert "/ is a folder" in error(command, "/")
        target = "out.ecdc" if command == "compress" else "out.wav"
        assert "Is a directory" in error(command, "..", target, "-m", TINY)
    assert "/ is a folder" in error("/", main=reference.main)


@pytest.mark.parametrize("model", [TINY, "encodec_48khz"])
@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize(("level", "other"), [(3e38, 1), (3e38, -1), (1e30, 1)])
def test_very_loud_audio_prints_one_line_at_most(
    model: str, rate: int, level: float, other: int
) -> None:
    wav = level * np.sign(np.sin(np.arange(100000) / 50))[:, None] * [1, other]
    soundfile.write("loud.wav", wav.astype(np.float32), rate, subtype="FLOAT")
    done = spawn("roundtrip", "loud.wav", "-m", model, "-b", "6", "--float", "-r")
    message = done.communicate()[1]
    if done.returncode == 0:
        assert message == b""
    else:
        assert message.startswith(b"encodec-fast: error: loud")
        assert message.count(b"\n") == 1


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are text there")
def test_names_that_are_no_utf8(error: Callable[..., str]) -> None:
    name = os.fsdecode(b"\xff\xfe.wav")
    Path("a.wav").rename(name)
    assert cli.main(["compress", name, "-m", TINY]) == 0
    assert cli.main(["decompress", os.fsdecode(b"\xff\xfe.ecdc")]) == 0
    assert os.fsdecode(b"\xff\xfe_decompressed.wav") in names()
    assert "\\udcff\\udcfe.ecdc exists already" in error("compress", name, "-m", TINY)


def test_a_model_name_that_is_not_fit_to_print(
    capsys: pytest.CaptureFixture[str], error: Callable[..., str]
) -> None:
    data = ecdc.Header("\x1b[31m\n" * 500, 5, 1).to_bytes() + b"ab"
    Path("bad.ecdc").write_bytes(data)
    assert cli.main(["info", "bad.ecdc"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() and len(line) < 150 for line in lines)
    assert cli.main(["info", "bad.ecdc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file_size"] == len(data)
    assert "not a model name" in error("decompress", "bad.ecdc")
    assert "written by model" in error("decompress", "bad.ecdc", "-m", TINY)


def test_wrong_usage_is_status_2() -> None:
    for arguments in ([], ["compress"], ["compress", "a.wav", "-b", "six"], ["dance"]):
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        assert left.value.code == 2


def test_interrupts_and_lack_of_memory(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> Callable[[], None]:
        def command() -> None:
            raise error

        return command

    assert console.run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""
    assert console.run(raising(MemoryError())) == 1
    assert capsys.readouterr().err == "encodec-fast: error: not enough memory\n"
    assert console.run(raising(ValueError("two\nlines"))) == 1
    assert capsys.readouterr().err == "encodec-fast: error: two lines\n"


def test_pipes() -> None:
    assert cli.main(["compress", "a.wav", "-m", TINY]) == 0
    assert cli.main(["decompress", "a.ecdc"]) == 0
    steps = (["compress", "-", "-m", TINY], ["decompress", "-", "-"])
    data = Path("a.wav").read_bytes()
    for step, expected in zip(steps, ("a.ecdc", "a_decompressed.wav"), strict=True):
        done = spawn(*step, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        data, message = done.communicate(data)
        assert (done.returncode, message) == (0, b"")
        assert data == Path(expected).read_bytes()


def test_a_reader_that_has_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = spawn("compress", "a.wav", "-", "-m", TINY, stdout=writer)
    os.close(writer)
    assert done.communicate()[1] == b""
    assert done.returncode == 141


def test_a_full_disk_leaves_nothing(error: Callable[..., str]) -> None:
    resource = pytest.importorskip("resource")
    assert cli.main(["compress", "a.wav", "-m", TINY]) == 0
    soundfile.write("long.wav", np.zeros(24000 * 10), 24000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        assert "b.ecdc" in error("compress", "long.wav", "b.ecdc", "-m", TINY)
        for options in ([], ["-r"], ["--float"]):
            assert "b.wav" in error("decompress", "a.ecdc", "b.wav", *options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_command_leaves_nothing() -> None:
    soundfile.write("long.wav", np.zeros(24000 * 1200), 24000)
    cases = ((signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130))
    for number, status in cases:
        # nohup and background jobs hand down ignored signals: start from the default.
        done = spawn(
            *("roundtrip", "long.wav", "b.wav", "-m", TINY),
            preexec_fn=lambda number=number: signal.signal(number, signal.SIG_DFL),
        )
        waited = time.monotonic()
        while not any(name.endswith(".tmp") for name in names()):
            assert done.poll() is None
            assert time.monotonic() - waited < 60
            time.sleep(0.005)
        done.send_signal(number)
        assert done.communicate()[1] == b""
        assert done.returncode == status
        assert names() == {"a.wav", "long.wav"}


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_signal_handlers_are_restored_and_ignored_signals_stay_so() -> None:
    def own(*_: object) -> None: ...

    def command() -> None:
        assert signal.getsignal(signal.SIGTERM) is not own
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    before = signal.signal(signal.SIGTERM, own), signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert console.run(command) == 0
        assert signal.getsignal(signal.SIGTERM) is own
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGHUP, before[1])


def test_commands_run_in_any_thread(capsys: pytest.CaptureFixture[str]) -> None:
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(cli.main(["models"])))
    thread.start()
    thread.join()
    assert statuses == [0]


def test_no_heavy_imports() -> None:
    code = (
        "import sys; from encodec_fast.cli import main\n"
        f"assert main(['compress', 'b.wav', '-m', '{TINY}']) == 0\n"
        "print({'torch', 'soxr', 'tqdm', 'scipy'} & sys.modules.keys())"
    )
    soundfile.write("b.wav", np.zeros(24000), 24000)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"


def test_the_progress_bar_needs_a_terminal_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock = SimpleNamespace(monotonic=iter([0, 0.1, 1, 2]).__next__)
    monkeypatch.setattr(console, "time", clock)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with console.progress_bar() as update:
        update(1.0, 4.0)
        assert sys.stderr.getvalue() == ""
        update(2.0, 4.0)
        update(4.0, 4.0)
    assert "/4.00" in sys.stderr.getvalue()


def test_list_models(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("encodec_48khz")]
    assert line.split()[1:3] == ["48000", "2"]
    assert line.split()[4:] == ["user", "3", "6", "12", "24"]


def test_list_models_with_a_damaged_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tmp_path))
    Path("broken.safetensors").write_bytes(b"x" * 100)
    assert cli.main(["models"]) == 0
    printed = capsys.readouterr()
    assert "broken" not in printed.out
    assert "warning: " in printed.err
    assert "broken.safetensors" in printed.err


def test_import_a_program(
    tiny_models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Callable[..., str]
) -> None:
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tmp_path / "new" / "models"))
    program = str(tiny_models / f"{TINY}.safetensors")
    assert "cannot be changed" in error("models", "import", program, "--name", "other")
    assert cli.main(["models", "import", program]) == 0
    assert Codec.load(TINY).sample_rate == 24000
    assert "exists already" in error("models", "import", program)
    assert cli.main(["models", "import", program, "-f"]) == 0
    Path("cut.safetensors").write_bytes(Path(program).read_bytes()[:-1000])
    assert "cut.safetensors" in error("models", "import", "cut.safetensors", "-f")
    assert Codec.load(TINY).sample_rate == 24000


def test_a_program_is_known_by_the_end_of_a_long_header(tmp_path: Path) -> None:
    name = b"encodec_fast.program"
    for size, known in (((1 << 22) - len(name), True), (1 << 23, False)):
        (tmp_path / "long").write_bytes(bytes(8) + bytes(size) + name)
        assert is_program(tmp_path / "long") == known


def test_import_a_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tmp_path / "models"))
    save_tiny_checkpoint(tmp_path / "tiny.pt")
    assert cli.main(["models", "import", "tiny.pt", "--name", "mine"]) == 0
    assert Codec.load("mine").name == "mine"
    assert cli.main(["compress", "a.wav", "-m", "mine"]) == 0
    assert cli.main(["decompress", "a.ecdc"]) == 0


def test_import_with_bfloat16_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tmp_path / "models"))
    save_tiny_checkpoint(tmp_path / "tiny.pt")
    for name, *options in (["exact"], ["half", "--weights", "bf16"]):
        assert cli.main(["models", "import", "tiny.pt", "--name", name, *options]) == 0
    exact, half = (Path("models", f"{name}.safetensors").read_bytes() for name in ("exact", "half"))
    assert b'"BF16"' not in exact and b'"BF16"' in half and len(half) < len(exact)
    assert cli.main(["compress", "a.wav", "-m", "half"]) == 0
    assert cli.main(["decompress", "a.ecdc"]) == 0


def test_import_refuses(error: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "not a model name" in error("models", "import", "a.wav", "--name", "../x")
    bundled = [store.StoredProgram("nano", Path("nano.safetensors"), "bundled")]
    monkeypatch.setattr(store, "list_programs", lambda: bundled)
    assert "bundled model" in error("models", "import", "a.wav", "--name", "nano")


def test_import_without_torch(error: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "encodec_fast.models.checkpoints", None)
    assert "pip install 'encodec-fast[torch]'" in error("models", "import", "a.wav")


def test_reference_lines() -> None:
    assert reference.main(["a.wav"]) == 0
    assert reference.main(["a.ecdc"]) == 0
    assert reference.main(["-b", "24", "-f", "a.wav", "a.ecdc"]) == 0
    assert reference.main(["-r", "-s", "_out", "a.ecdc"]) == 0
    assert reference.main(["-q", "-b", "3", "a.wav", "hq.ecdc"]) == 0
    assert reference.main(["hq.ecdc", "hq.wav"]) == 0
    assert reference.main(["-q", "-b", "3", "a.wav", "direct.wav"]) == 0
    assert names() == {
        "a.wav", "a.ecdc", "a_decompressed.wav", "a_out.wav", "hq.ecdc", "hq.wav", "direct.wav",
    }  # fmt: skip
    assert Path("hq.wav").read_bytes() == Path("direct.wav").read_bytes()
    assert soundfile.info("hq.wav").channels == 2


def test_reference_lines_that_fail(
    error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reference.main(["a.wav"]) == 0
    main = reference.main
    assert "a.ecdc exists already" in error("a.wav", main=main)
    assert "3, 6, 12, 24" in error("-q", "-b", "1.5", "-f", "a.wav", main=main)
    assert ".wav" in error("a.wav", "a.mp3", main=main)
    assert "absent.wav" in error("absent.wav", main=main)
    with pytest.raises(SystemExit) as left:
        main(["-b", "5", "a.wav"])
    assert left.value.code == 2
    monkeypatch.setenv("ENCODEC_FAST_MODELS", "/nonexistent")
    assert "encodec-fast models import" in error("a.wav", "new.ecdc", main=main)


def test_python_m_runs_the_reference_lines() -> None:
    done = subprocess.run([sys.executable, "-m", "encodec_fast", "a.wav"], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert "a.ecdc" in names()
