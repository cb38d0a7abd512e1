"""`encodec-fast bench`: what it measures, what it prints, how it fails; never how long it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import DIMENSION, ENTRIES, HOP, describe, tiny_program

from encodec_fast import __version__, bench, cli, store

KINDS = ["reflect", "constant", "ahead", "segments"]
SECONDS = 0.2
SAMPLES = 1600  # of them, at 8 kHz; no whole number of frames


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with tiny programs."""
    for kind in KINDS:
        tiny_program(tmp_path, kind, 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs `encodec-fast bench` on a tiny program and returns what it prints."""

    def command(kind: str, *arguments: str) -> str:
        model = f"./tiny_{kind}.safetensors"
        assert cli.main(["bench", "-m", model, "--seconds", f"{SECONDS}", *arguments]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out

    return command


def macs_by_shape(kind: str, direction: str, n_q: int, segments: list[int]) -> list[int]:
    """Multiply-accumulates of each operation, then of RVQ, on segments of so many samples."""
    header, tensors = describe(kind, 2)
    frames = [-(-samples // HOP) for samples in segments]
    totals = []
    rows = [segments if direction == "encoder" else frames]
    for op in header[direction]:
        source = rows[op["input"]]
        k, n = tensors[op["weight"]].shape
        if op["op"] == "conv":
            rows.append([-(-length // op["stride"]) for length in source])
            products = sum(rows[-1])
        elif op["op"] == "lstm":
            rows.append(source)
            products = sum(source)
            k += tensors[op["recurrent"]].shape[0]
        else:
            rows.append([length * op["stride"] for length in source])
            # A row more than the input where the end of the overlap counts.
            overlap = op["trim_left"] > 0 or op["norm"] is not None
            products = sum(length + overlap for length in source)
        totals.append(products * k * n)
    search = n_q * ENTRIES * DIMENSION if direction == "encoder" else 0
    return [*totals, sum(frames) * search]


def test_report(run: Callable[..., str]) -> None:
    report = json.loads(run("reflect", "--json", "-b", "3", "-t", "2"))
    assert (report["version"], report["isa"]) == (__version__, bench._native.cpu_info()["isa"])
    assert report["cpu"] and report["cores"] >= 1
    assert (report["model"], report["bandwidth"], report["threads"]) == ("tiny_reflect", 3.0, 2)
    assert (report["seconds"], report["sample_rate"], report["channels"]) == (SECONDS, 8000, 2)
    assert [r["direction"] for r in report["recording"]] == ["encode", "decode"]
    for r in report["recording"]:
        assert r["times_real_time"] == pytest.approx(SECONDS / r["seconds"])
        assert r["gmac_per_second"] > 0
    assert report["frames"] == report["profile"] == []


@pytest.mark.parametrize("kind", KINDS)
def test_profile_covers_the_program(run: Callable[..., str], kind: str) -> None:
    report = json.loads(run(kind, "--profile", "--json"))
    segments = [min(100, SAMPLES - at) for at in range(0, SAMPLES, 90)]
    if kind != "segments":
        segments = [SAMPLES]
    wings = zip(report["profile"], report["recording"], ("encoder", "decoder"), strict=True)
    for profile, recording, direction in wings:
        operations = profile["operations"]
        assert profile["direction"] == recording["direction"]
        assert (profile["frames_per_call"] is None) == (kind == "segments")
        assert operations[-1]["name"] == "rvq"
        macs = [operation["macs"] for operation in operations]
        assert macs == macs_by_shape(kind, direction, 2, segments)
        assert recording["gmac_per_second"] == pytest.approx(sum(macs) / recording["seconds"] / 1e9)
        assert sum(operation["share"] for operation in operations) == pytest.approx(1)


def test_frames(run: Callable[..., str]) -> None:
    report = json.loads(run("reflect", "--frames", "--profile", "--json"))
    assert [f["direction"] for f in report["frames"]] == ["encode", "decode", "both"]
    for f in report["frames"]:
        assert f["calls"] == SAMPLES // HOP
        assert 0 < f["median_ms"] <= f["p99_ms"]
        assert f["p99_share"] == pytest.approx(f["p99_ms"] / report["frame_ms"])
    sizes = [(p["direction"], p["frames_per_call"]) for p in report["profile"]]
    assert sizes[2:] == [("encode", 1), ("decode", 1)]
    macs = [[operation["macs"] for operation in p["operations"]] for p in report["profile"]]
    assert macs[:2] == macs[2:]


def test_text(run: Callable[..., str]) -> None:
    text = run("constant", "--frames", "--profile")
    assert text.startswith(f"encodec-fast {__version__}, {bench._native.cpu_info()['isa']}, ")
    assert "tiny_constant, 6 kbps, 0.2 s at 8000 Hz, 2 channels, threads 1\n" in text
    for title in ("whole recording", "one frame per call", "encode, frames per call: 64"):
        assert f"\n\n{title}" in text
    for table in text.split("\n\n")[1:]:
        assert len({len(line) for line in table.rstrip("\n").split("\n")}) == 1
    assert "per call" not in run("segments").split("\n\n", 1)[1]


def test_the_sample_is_cut_or_repeated() -> None:
    codec = bench.Codec.load("./tiny_reflect.safetensors")
    once = bench._sample(codec, 0.5)
    assert once.shape == (2, 4000)
    with bench.AudioReader(store.sample_path(), 8000, 2) as reader:
        length = sum(block.shape[1] for block in reader.blocks())
    twice = bench._sample(codec, length / 8000 + 0.5)
    assert (twice[:, length:] == once).all() and (twice[:, :4000] == once).all()
    assert bench._sample(codec, 1e-9).shape == (2, 1)


def test_times_of_zero_have_no_rate() -> None:
    operations = bench._operations([("0 conv", 0.0, 5), ("rvq", 0.0, 0)])
    assert [(o.share, o.gmac_per_second) for o in operations] == [(0.0, 0.0)] * 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-m", "nobody"], "model nobody not found"),
        (["-m", "./none.safetensors"], "no program file"),
        (["-b", "5"], "supports 3, 6, 12 kbps, found 5.0"),
        (["-b", "nan"], "supports 3, 6, 12 kbps, found nan"),
        (["-t", "0"], "threads: expected"),
        (["--seconds", "0"], "seconds: expected more than 0, up to 600, found 0"),
        (["--seconds", "-1"], "found -1"),
        (["--seconds", "nan"], "found nan"),
        (["--seconds", "inf"], "found inf"),
        (["--seconds", "601"], "found 601"),
        (["--seconds", "1e300"], "found 1e+300"),
        (["--frames", "--seconds", "0.0001"], "seconds: expected at least one frame (0.00075)"),
        (["--frames", "-m", "./tiny_segments.safetensors"], "frames: tiny_segments is not causal"),
    ],
)
def test_errors(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "-m", "./tiny_reflect.safetensors", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("encodec-fast: error: ") and printed.err.count("\n") == 1
    assert expected in printed.err


def test_wrong_usage_is_status_2() -> None:
    for arguments in (["--seconds", "ten"], ["--seconds"], ["a.wav"], ["-b", "six"]):
        with pytest.raises(SystemExit) as left:
            cli.main(["bench", *arguments])
        assert left.value.code == 2
