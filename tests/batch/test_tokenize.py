"""Runs: what they write, how they go on, what they refuse, and what they report."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import (
    RECORDINGS,
    alone,
    files_of,
    same_codes,
    write_corpus,
    write_short_files,
)
from programs import tiny_program

import encodec_fast as ef
from encodec_fast.batch import job as job_module
from encodec_fast.batch import run
from encodec_fast.batch.run import Progress
from encodec_fast.batch.settings import Settings

FORMATS = ("npy", "safetensors", "webdataset", "ecdc")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_program(tmp_path_factory.mktemp("program"), "constant")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "corpus")
    return tmp_path / "corpus"


def manifest(out: Path, job: str = "") -> Any:
    return json.loads((out / f"manifest{job}.json").read_text())


def coded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of items that are coded from now on."""
    keys: list[str] = []
    original = run.coded_items

    def counted(*arguments: Any) -> Iterator[Any]:
        for outcome in original(*arguments):
            keys.append(outcome.key)
            yield outcome

    monkeypatch.setattr(run, "coded_items", counted)
    return keys


@pytest.mark.parametrize("kind", ["constant", "segments"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_run(tmp_path: Path, corpus: Path, format: str, kind: str) -> None:
    codec = ef.Codec.load(tiny_program(tmp_path, kind))
    (corpus / "broken.wav").write_bytes(b"no audio")
    report = ef.tokenize(corpus, tmp_path / "out", codec, 12.0, format, shard_size=3)
    assert (report.items, report.resumed) == (len(RECORDINGS), 0)
    assert [failure.key for failure in report.failures] == ["broken.wav"]
    found = {tokens.key: tokens for tokens in ef.load_tokens(tmp_path / "out", codec)}
    assert len(found) == len(RECORDINGS)
    for name, *_ in RECORDINGS:
        assert same_codes(found[name].to_codes(), alone(codec, corpus / name))
        assert found[name].source == str(corpus / name)
    about = manifest(tmp_path / "out")
    assert (about["items"], about["failed"], about["model"]) == (7, 1, codec.name)
    assert about["samples"] == sum(tokens.audio_length for tokens in found.values())
    assert about["hours"] == pytest.approx(report.hours) and report.hours > 0
    files = files_of(tmp_path / "out")
    for entry in about["files"]:
        data = files.pop(entry["file"])
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert files.keys() == {"manifest.json", "failed.jsonl"}  # nothing else is left
    if format in ("npy", "ecdc"):
        assert sum(entry["items"] for entry in about["files"]) == len(about["files"]) == 7
    else:
        assert [entry["items"] for entry in about["files"]] == [2, 3, 2]
        assert about["files"][1]["file"].startswith("tokens-00001.")
    (failure,) = map(json.loads, (tmp_path / "out" / "failed.jsonl").read_text().splitlines())
    assert failure["key"] == "broken.wav" and failure["reason"]


def test_threads_and_shards_do_not_show(tmp_path: Path, corpus: Path, program: Path) -> None:
    outputs = []
    for threads in (1, 3):
        out = tmp_path / f"out{threads}"
        ef.tokenize(corpus, out, program, format="safetensors", threads=threads)
        outputs.append(files_of(out))
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_an_array_of_jobs(tmp_path: Path, corpus: Path, program: Path, format: str) -> None:
    """All in one folder: together what one run makes, each item once."""
    (corpus / "broken.wav").write_bytes(b"no audio")
    out, codec = tmp_path / "out", ef.Codec.load(program)
    options = {"codec": program, "format": format, "shard_size": 2}
    reports = [ef.tokenize(corpus, out, shard=(i, 3), **options) for i in (2, 0, 1)]
    assert sum(report.items for report in reports) == len(RECORDINGS)
    assert sum(len(report.failures) for report in reports) == 1
    found = list(ef.load_tokens(out))
    assert sorted(tokens.key for tokens in found) == sorted(name for name, *_ in RECORDINGS)
    for tokens in found:
        assert same_codes(tokens.to_codes(), alone(codec, corpus / tokens.key, 6.0))
    if format == "safetensors":
        names = [entry["file"] for entry in manifest(out, "-00001-of-00003")["files"]]
        assert names[0] == "tokens-00001-of-00003-00000.safetensors"
    assert not (out / ".tokenize").exists()
    assert ef.tokenize(corpus, out, shard=(1, 3), **options).resumed == reports[2].items
    with pytest.raises(ValueError, match="jobs: expected 1, found 3"):
        ef.tokenize(corpus, out, **options)


def test_more_jobs_than_items(tmp_path: Path, program: Path) -> None:
    write_short_files(tmp_path / "in", 1)
    for index in range(3):
        report = ef.tokenize(tmp_path / "in", tmp_path / "out", program, shard=(index, 3))
        assert report.items == (index == 0)


@pytest.mark.parametrize("format", ["npy", "safetensors"])
def test_a_run_goes_on_where_it_was(
    tmp_path: Path, corpus: Path, program: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    (corpus / "broken.wav").write_bytes(b"no audio")
    options = {"codec": program, "format": format, "shard_size": 3, "threads": 1}
    ef.tokenize(corpus, tmp_path / "whole", **options)
    keys = coded(monkeypatch)

    def interrupt(progress: Progress) -> None:
        if len(keys) % 3 == 0:
            raise KeyboardInterrupt

    for calls in range(1, 10):  # noqa: B007 - its last value is looked at
        try:
            ef.tokenize(corpus, tmp_path / "out", progress=interrupt, **options)
        except KeyboardInterrupt:
            continue
        break
    assert calls == 3 and len(keys) == len(set(keys)) == len(RECORDINGS) + 1
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
    report = ef.tokenize(corpus, tmp_path / "out", **options)
    assert report.resumed == report.items == len(RECORDINGS) and len(report.failures) == 1
    assert len(keys) == len(RECORDINGS) + 1


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("format", ["npy", "safetensors", "webdataset"])
def test_failures_are_tried_again(
    tmp_path: Path,
    corpus: Path,
    program: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
    finished: bool,
) -> None:
    options = {"codec": program, "format": format, "shard_size": 3, "threads": 1}
    ef.tokenize(corpus, tmp_path / "whole", **options)
    data = {name: (corpus / name).read_bytes() for name in ("speech/a.wav", "e.flac")}
    for name in data:
        (corpus / name).write_bytes(b"no audio")
    out = tmp_path / "out"
    keys = coded(monkeypatch)

    def interrupt(progress: Progress) -> None:
        if not finished and len(keys) == 6:
            raise KeyboardInterrupt

    try:
        assert len(ef.tokenize(corpus, out, progress=interrupt, **options).failures) == 2
    except KeyboardInterrupt:
        assert not finished
    (corpus / "e.flac").write_bytes(data["e.flac"])
    keys.clear()
    report = ef.tokenize(corpus, out, retry_failed=True, **options)
    assert [failure.key for failure in report.failures] == ["speech/a.wav"]
    assert len(keys) == (2 if finished else 3)
    (corpus / "speech/a.wav").write_bytes(data["speech/a.wav"])
    assert len(ef.tokenize(corpus, out, **options).failures) == 1  # only where it is asked for
    report = ef.tokenize(corpus, out, retry_failed=True, **options)
    assert (report.items, report.failures) == (len(RECORDINGS), ())
    assert files_of(out) == files_of(tmp_path / "whole")


def test_other_outputs_are_refused(tmp_path: Path, corpus: Path, program: Path) -> None:
    out = tmp_path / "out"
    ef.tokenize(corpus, out, program, 6.0)
    before = files_of(out)
    other = tiny_program(tmp_path, "reflect")
    for reason, call in {
        "model: expected tiny_reflect, found tiny_constant": {"codec": other},
        r"bandwidth: expected 12\.0, found 6\.0": {"bandwidth": 12.0},
        "format: expected ecdc, found npy": {"format": "ecdc"},
        "shard_size: expected 7, found 1000": {"shard_size": 7},
        "total: expected 2, found 7": {"sources": corpus / "music"},
    }.items():
        with pytest.raises(ValueError, match=reason) as caught:
            ef.tokenize(**{"sources": corpus, "out": out, "codec": program, **call})
        assert str(out) in str(caught.value)
    assert files_of(out) == before
    (corpus / "f.wav").rename(corpus / "g.wav")
    with pytest.raises(ValueError, match="keys: expected"):
        ef.tokenize(corpus, out, program)
    with pytest.raises(ValueError, match=r"expected a new or empty folder.*\(e\.flac\)"):
        ef.tokenize(corpus, corpus, program)
    with pytest.raises(NotADirectoryError):
        ef.tokenize(corpus, corpus / "e.flac", program)
    with pytest.raises(ValueError, match="expected a local folder"):
        ef.tokenize(corpus, "memory://out", program)


def test_an_unfinished_run_is_its_own_too(tmp_path: Path, corpus: Path, program: Path) -> None:
    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ef.tokenize(corpus, tmp_path / "out", program, progress=interrupt)
    with pytest.raises(ValueError, match=r"bandwidth: expected 3\.0, found 6\.0"):
        ef.tokenize(corpus, tmp_path / "out", program, 3.0)
    assert ef.tokenize(corpus, tmp_path / "out", program).resumed >= 1


@pytest.mark.skipif(job_module.fcntl is None, reason="no locks")
def test_one_process_at_a_time(tmp_path: Path, corpus: Path, program: Path) -> None:
    refused = []

    def again(progress: Progress) -> None:
        with pytest.raises(OSError, match="another process is writing this job") as caught:
            ef.tokenize(corpus, tmp_path / "out", program)
        refused.append(caught.value)

    ef.tokenize(corpus, tmp_path / "out", program, progress=again)
    assert len(refused) == len(RECORDINGS)


def test_arguments(tmp_path: Path, corpus: Path, program: Path) -> None:
    for reason, options in {
        "format: expected .* found 'zip'": {"format": "zip"},
        "bandwidth: .* found 5": {"bandwidth": 5.0},
        "threads: expected .* found 0": {"threads": 0},
        "shard_size: expected .* found 1.5": {"shard_size": 1.5},
        r"shard: expected .* found \(3, 3\)": {"shard": (3, 3)},
        "engine: expected .* found 'dask'": {"engine": "dask"},
        "codec: engine ray needs": {"engine": "ray", "codec": ef.Codec.load(program)},
    }.items():
        with pytest.raises(ValueError, match=reason):
            ef.tokenize(corpus, tmp_path / "out", **{"codec": program, **options})
    with pytest.raises(ef.ModelNotFoundError):
        ef.tokenize(corpus, tmp_path / "out", "no_such_model")
    assert not (tmp_path / "out").exists()
    assert Settings("m", shard=(7, 20)).job == "-00007-of-00020"


def test_progress(tmp_path: Path, corpus: Path, program: Path) -> None:
    (corpus / "broken.wav").write_bytes(b"no audio")
    told: list[Progress] = []
    report = ef.tokenize(corpus, tmp_path / "out", program, progress=told.append)
    assert len(told) == len(RECORDINGS) + 1
    assert told == sorted(told)
    assert told[-1].share == pytest.approx(1) and told[-1].failed == 1
    assert told[-1].seconds / 3600 == pytest.approx(report.hours, abs=1e-6)


@pytest.mark.parametrize("format", ["npy", "safetensors"])
@pytest.mark.parametrize("retry", [False, True])
def test_a_finished_run_whose_files_are_gone(
    tmp_path: Path, corpus: Path, program: Path, format: str, retry: bool
) -> None:
    (corpus / "broken.wav").write_bytes(b"no audio")
    options: dict[str, Any] = {"codec": program, "format": format, "shard_size": 3}
    out = tmp_path / "out"
    ef.tokenize(corpus, out, **options)
    file = manifest(out)["files"][1]["file"]
    data = (out / file).read_bytes()
    for change, found in (((out / file).unlink, "none"), ((out / file).touch, "0 bytes")):
        change()
        with pytest.raises(ValueError, match=rf"1 of its \d files .* {file} .* found {found}"):
            ef.tokenize(corpus, out, retry_failed=retry, **options)
    (out / file).write_bytes(data)
    assert ef.tokenize(corpus, out, retry_failed=retry, **options).items == len(RECORDINGS)


@pytest.mark.skipif(job_module.fcntl is None, reason="no locks")
def test_a_lock_on_a_file_that_is_gone_guards_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process of the job ends, and clears its state, while this one takes the lock."""
    path = tmp_path / "out" / "state" / "lock"
    original = job_module.fcntl.flock
    removals = []

    def clearing(file: Any, how: int) -> None:
        if len(removals) < 2:
            shutil.rmtree(path.parent)
            removals.append(file)
        if len(removals) == 2:  # and a third one begins anew
            path.parent.mkdir(exist_ok=True)
            path.touch()
        original(file, how)

    monkeypatch.setattr(job_module.fcntl, "flock", clearing)
    with job_module._locked(path) as file:
        assert len(removals) == 2 and all(one.closed for one in removals)
        assert os.path.samestat(os.fstat(file.fileno()), path.stat())
        with pytest.raises(OSError, match="another process"):
            job_module._locked(path)


def test_tokens_decode(tmp_path: Path, corpus: Path, program: Path) -> None:
    codec = ef.Codec.load(program)
    ef.tokenize(corpus, tmp_path / "out", codec, None)
    for tokens in ef.load_tokens(tmp_path / "out"):
        wav = codec.decode(tokens.to_codes())
        assert wav.shape == (1, tokens.audio_length) and np.isfinite(wav).all()
