"""Limits of formats and file systems: an item beyond one is a failure, and no run ends there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data_sets import RECORDINGS, files_of, sound_bytes, write_corpus, write_tar
from programs import tiny_program
from token_items import WEIRD_KEYS, make_tokens, tiny_codec

import encodec_fast as ef
from encodec_fast.batch import safetensors_format
from encodec_fast.batch.formats import FORMATS
from encodec_fast.batch.job import Job
from encodec_fast.batch.names import file_name


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_program(tmp_path_factory.mktemp("program"), "constant")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "corpus")
    return tmp_path / "corpus"


def test_an_item_that_its_format_cannot_hold(tmp_path: Path, program: Path) -> None:
    wav = sound_bytes("x.wav", 8000, 1, 0.2)
    members = {"1.wav": wav, "1.txt": bytes(100_000), "2.wav": wav, "2.txt": b"said"}
    tar = write_tar(tmp_path / "a.tar", members)
    report = ef.tokenize(tar, tmp_path / "out", program, format="ecdc")
    assert report.items == 1
    (failure,) = report.failures
    assert failure.key == "a.tar/1" and failure.reason.startswith("ecdc: ")


def test_descriptions_that_do_not_fit_into_a_header(
    tmp_path: Path, corpus: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which items are refused does not depend on the others, and those that are not have room."""
    monkeypatch.setattr(safetensors_format, "MAX_HEADER", 20 * 1100)
    # Quotes take seven times their room in JSON in JSON.
    keys = [*(f"{n:02d}" + '"' * 3 * n for n in range(40)), "k" * 1025, "x" * 900]
    rows = [json.dumps({"path": str(corpus / "e.flac"), "key": key}) for key in keys]
    outputs = []
    for name, chosen in (("list", rows), ("few", rows[-3:] + rows[:1])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(chosen))
        report = ef.tokenize(
            tmp_path / f"{name}.jsonl",
            tmp_path / name,
            program,
            format="safetensors",
            shard_size=20,
        )
        failures = {failure.key: failure.reason for failure in report.failures}
        assert "at most 1100 bytes of the header of a shard of 20" in failures["x" * 900]
        assert "key: expected 1..1024 bytes" in failures["k" * 1025]
        found = {tokens.key for tokens in ef.load_tokens(tmp_path / name)}
        assert len(found) == report.items and not found & failures.keys()
        outputs.append(failures)
    assert outputs[1].items() <= outputs[0].items()
    assert "00" not in outputs[1] and 5 < len(outputs[0]) < 35


@pytest.mark.parametrize("count", [1, 7])
def test_items_that_pass_fill_no_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """A header of items alike that would be one byte too long has none that passes."""
    codec = tiny_codec(tmp_path, "segments")
    path = tmp_path / "shard"
    for seed, key in enumerate(WEIRD_KEYS):
        items = [make_tokens(codec, f"{key}{n}", seed) for n in range(count)]
        FORMATS["safetensors"].write(items, path, codec)
        header = int.from_bytes(path.read_bytes()[:8], "little")
        with monkeypatch.context() as patch:
            patch.setattr(safetensors_format, "MAX_HEADER", header - 1)
            for item in items:
                with pytest.raises(ValueError, match=f"header of a shard of {count}"):
                    safetensors_format.check(item, count)


@pytest.mark.parametrize("format", ["safetensors", "webdataset"])
def test_a_shard_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, corpus: Path, program: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    options = {"codec": program, "format": format, "shard_size": 3}
    (corpus / "broken.wav").write_bytes(b"no audio")
    ef.tokenize(corpus, tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        original = Job._publish

        def refusing(self: Job, name: str, tokens: Any) -> Any:
            if name.startswith("tokens-00000"):
                raise ValueError("a limit")
            return original(self, name, tokens)

        patch.setattr(Job, "_publish", refusing)
        report = ef.tokenize(corpus, tmp_path / "out", **options)
    assert (report.items, len(report.failures)) == (len(RECORDINGS) - 2, 3)
    reasons = {failure.key: failure.reason for failure in report.failures}
    assert "limit" not in reasons.pop("broken.wav")
    assert reasons == dict.fromkeys(["e.flac", "f.wav"], f"{format}: a limit")
    assert len(list(ef.load_tokens(tmp_path / "out"))) == report.items
    ef.tokenize(corpus, tmp_path / "out", retry_failed=True, **options)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_keys_that_are_long_names(tmp_path: Path, corpus: Path, program: Path) -> None:
    keys = ["ü" * 100, "x" * 300, "d" * 300 + "/e", "x" * 299 + "y"]
    rows = [json.dumps({"path": str(corpus / "e.flac"), "key": key}) for key in keys]
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    ef.tokenize(tmp_path / "list.jsonl", tmp_path / "out", program)
    assert sorted(tokens.key for tokens in ef.load_tokens(tmp_path / "out")) == sorted(keys)
    assert file_name("a/b.wav", ".npy") == "a/b%2Ewav.npy"


@pytest.mark.parametrize("format", ["npy", "ecdc"])
def test_keys_that_are_long_paths(tmp_path: Path, corpus: Path, program: Path, format: str) -> None:
    """Encoded, they are three times as long."""
    folders = "/".join(["ü" * 25] * 20)[:510]
    keys = [f"{folders}a", f"{folders}b", "a/" * 400 + "c", "d" * 1024, "/".join("e" * 300)]
    rows = [json.dumps({"path": str(corpus / "e.flac"), "key": key}) for key in keys]
    (tmp_path / "list.jsonl").write_text("\n".join(rows))
    report = ef.tokenize(tmp_path / "list.jsonl", tmp_path / "out", program, format=format)
    assert not report.failures
    found = ef.load_tokens(tmp_path / "out", ef.Codec.load(program))
    assert sorted(tokens.key for tokens in found) == sorted(keys)
    assert all(len(file_name(key, ".npy")) <= 1024 for key in keys)
    # No other key has the name of a shortened one.
    short = file_name("d" * 1024, "")
    assert "." in short and file_name(short, "") != short
