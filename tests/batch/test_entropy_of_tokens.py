"""Runs whose .ecdc files are entropy-coded: their bytes, how they go on, and what is refused."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import RECORDINGS, alone, files_of, same_codes, write_corpus, write_short_files
from language_models import Sizes, entropy_tensors, random_weights, write_entropy_model
from test_kills import Ended, end_at
from token_items import make_tokens

import encodec_fast as ef
from encodec_fast import chunk_codes, info, store
from encodec_fast.batch import coding, ecdc_format, run
from encodec_fast.batch.cluster_output import ClusterOutput
from encodec_fast.batch.coding import Failure
from encodec_fast.batch.items import Item
from encodec_fast.batch.names import file_name
from encodec_fast.batch.run import Progress
from encodec_fast.batch.settings import Settings
from encodec_fast.batch.shard_coder import ShardCoder
from encodec_fast.batch.sources import list_items

ENTROPIES = ("none", "static", "lm")


@pytest.fixture(params=["constant", "segments"])
def program(request: pytest.FixtureRequest, tiny_entropies: Path) -> Path:
    return tiny_entropies / f"tiny_{request.param}.safetensors"


@pytest.fixture
def causal(tiny_entropies: Path) -> Path:
    return tiny_entropies / "tiny_constant.safetensors"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "corpus")
    return tmp_path / "corpus"


def ecdc_files(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in files_of(out).items() if name.endswith(".ecdc")}


@pytest.mark.parametrize("entropy", ENTROPIES)
def test_files_are_those_of_compress(
    tmp_path: Path, corpus: Path, program: Path, entropy: str
) -> None:
    codec = ef.Codec.load(program)
    (corpus / "broken.wav").write_bytes(b"no audio")
    report = ef.tokenize(corpus, tmp_path / "out", codec, 12.0, "ecdc", entropy=entropy)
    assert report.items == len(RECORDINGS)
    assert [failure.key for failure in report.failures] == ["broken.wav"]
    files = ecdc_files(tmp_path / "out")
    assert len(files) == len(RECORDINGS)
    for name, *_ in RECORDINGS:
        data, about = files[file_name(name, ".ecdc")], {"key": name, "source": str(corpus / name)}
        codec.compress_file(
            corpus / name, tmp_path / "one", bandwidth=12.0, entropy=entropy,
            metadata=about, overwrite=True,
        )  # fmt: skip
        assert data == (tmp_path / "one").read_bytes()
        described = info.info(tmp_path / "out" / file_name(name, ".ecdc"), program)
        assert (described.entropy, described.metadata) == (entropy, about)
    found = {tokens.key: tokens for tokens in ef.load_tokens(tmp_path / "out", codec)}
    for name, *_ in RECORDINGS:
        assert same_codes(found[name].to_codes(), alone(codec, corpus / name))


@pytest.mark.parametrize("lanes", [1, 3, 16, 1000])
@pytest.mark.parametrize("threads", [1, 3])
def test_lanes_and_threads_do_not_show(
    tmp_path: Path,
    program: Path,
    monkeypatch: pytest.MonkeyPatch,
    lanes: int,
    threads: int,
) -> None:
    write_short_files(tmp_path / "in", 30)
    options: dict[str, Any] = {"codec": program, "format": "ecdc", "entropy": "lm"}
    monkeypatch.setattr(chunk_codes, "MANY_LANES", 2)
    ef.tokenize(tmp_path / "in", tmp_path / "expected", threads=2, **options)
    monkeypatch.setattr(chunk_codes, "MANY_LANES", lanes)
    ef.tokenize(tmp_path / "in", tmp_path / "out", threads=threads, **options)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "expected")
    assert len(ecdc_files(tmp_path / "out")) == 30


def test_items_wait_for_each_other_and_no_longer(
    causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A language model codes as many key intervals at once as it has lanes; the rest of the items,
    a failure among them and one that no file can hold, go on at once."""
    codec = ef.Codec.load(causal)
    monkeypatch.setattr(chunk_codes, "MANY_LANES", 4)
    groups: list[int] = []
    original = ecdc_format.files_of

    def counted(program: Any, model: Any, recordings: Any, *more: Any) -> list[bytes]:
        groups.append(len(recordings))
        return original(program, model, recordings, *more)

    monkeypatch.setattr(ecdc_format, "files_of", counted)
    items: list[Any] = [make_tokens(codec, f"{n}", n) for n in range(9)]
    items.insert(2, Failure("broken", "broken", "why"))
    items.insert(5, make_tokens(codec, "large", extra={"json": b" " * 70_000}))
    # Codebooks that differ do not fit one coder.
    items = [item if isinstance(item, Failure) else cut(item) for item in items]
    found = list(ecdc_format.packed(iter(items), codec, "lm"))
    assert groups == [4, 4, 1]
    assert [item.key for item in found] == [
        "broken", "0", "1", "2", "3", "large", "4", "5", "6", "7", "8",
    ]  # fmt: skip
    failures = [item for item in found if isinstance(item, Failure)]
    assert [failure.key for failure in failures] == ["broken", "large"]
    assert failures[1].reason.startswith("ecdc: metadata: expected at most")
    assert sum(isinstance(item, ecdc_format.Packed) for item in found) == 9
    groups.clear()
    long = replace(
        cut(make_tokens(codec, "long")),
        codes=np.zeros((1, 60_000), np.uint16), segment_frames=(60_000,), audio_length=360_000,
    )  # fmt: skip
    list(ecdc_format.packed([long, *items[:2]], codec, "lm"))
    assert groups == [1, 2]  # five key intervals are enough on their own
    groups.clear()
    list(ecdc_format.packed(items[:2], codec, "none"))
    assert groups == [1, 1, 0]  # nothing to share


def test_what_just_fits_without_entropy_coding(causal: Path) -> None:
    """The hash of the entropy model takes bytes of the header: no file is written in another mode
    than was asked for."""
    codec = ef.Codec.load(causal)
    tokens = cut(make_tokens(codec, "key", extra={}, source=""))
    room = (1 << 16) - len(ecdc_format._header(tokens, codec, "none").to_bytes()) + 13
    tokens = replace(tokens, source="x" * room)
    (plain,) = ecdc_format.packed([tokens], codec, "none")
    assert isinstance(plain, ecdc_format.Packed)
    (coded,) = ecdc_format.packed([tokens], codec, "lm")
    assert isinstance(coded, Failure) and coded.reason.startswith("ecdc: metadata")


def test_one_that_cannot_be_coded_is_a_failure_alone(
    causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probabilities that are not finite, say: the others of its group do not suffer from it."""
    codec = ef.Codec.load(causal)
    original = ecdc_format.files_of

    def refusing(program: Any, model: Any, recordings: Any, *more: Any) -> list[bytes]:
        if any(header.metadata["key"] == "3" for header, *_ in recordings):
            raise ValueError("language model: its probabilities are not finite")
        return original(program, model, recordings, *more)

    monkeypatch.setattr(ecdc_format, "files_of", refusing)
    items = [cut(make_tokens(codec, f"{n}", n)) for n in range(6)]
    found = list(ecdc_format.packed(items, codec, "lm"))
    assert [isinstance(item, Failure) for item in found] == [n == 3 for n in range(6)]
    assert "not finite" in found[3].reason


def test_what_waits_when_a_run_ends_is_not_packed(
    tmp_path: Path, causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take a language model minutes, on a thread that nobody waits for."""
    codec = ef.Codec.load(causal)
    monkeypatch.setattr(chunk_codes, "MANY_LANES", 1000)
    packed: list[int] = []
    original = ecdc_format.files_of

    def counted(program: Any, model: Any, recordings: Any, *more: Any) -> list[bytes]:
        packed.append(len(recordings))
        return original(program, model, recordings, *more)

    monkeypatch.setattr(ecdc_format, "files_of", counted)
    write_short_files(tmp_path / "in", 60)
    (tmp_path / "in" / "0000.wav").write_bytes(b"no audio")

    read = coding.read_item

    def slowly(item: Item, header: Any) -> Iterator[Any]:
        if item.key != "0000.wav":
            time.sleep(0.02)  # the run ends long before its last one
        return read(item, header)

    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    options: dict[str, Any] = {"format": "ecdc", "entropy": "lm", "threads": 1}
    monkeypatch.setattr(coding, "read_item", slowly)
    monkeypatch.setattr(run, "longest_first", iter)
    with pytest.raises(KeyboardInterrupt):
        ef.tokenize(tmp_path / "in", tmp_path / "out", codec, progress=interrupt, **options)
    assert packed == []


def cut(tokens: Any) -> Any:
    return replace(tokens, codes=tokens.codes[:1].copy())


def test_a_run_goes_on_where_it_was(tmp_path: Path, corpus: Path, program: Path) -> None:
    options: dict[str, Any] = {"codec": program, "format": "ecdc", "entropy": "lm", "threads": 1}
    ef.tokenize(corpus, tmp_path / "whole", **options)
    seen = 0

    def interrupt(progress: Progress) -> None:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        ef.tokenize(corpus, out, progress=interrupt, **options)
    assert len(ecdc_files(out)) == 3
    for other, words in {
        "none": "expected none, found lm",
        "static": "expected static, found lm",
    }.items():
        with pytest.raises(ValueError, match=f"entropy: {words}"):
            ef.tokenize(corpus, out, **{**options, "entropy": other})
    assert ef.tokenize(corpus, out, **options).resumed == 3
    assert files_of(out) == files_of(tmp_path / "whole")
    assert ef.tokenize(corpus, out, **options).resumed == len(RECORDINGS)
    with pytest.raises(ValueError, match="entropy: expected none, found lm"):
        ef.tokenize(corpus, out, **{**options, "entropy": "none"})
    plain = tmp_path / "plain"
    ef.tokenize(corpus, plain, program, format="ecdc")
    with pytest.raises(ValueError, match="entropy: expected lm, found none"):
        ef.tokenize(corpus, plain, **options)


@pytest.mark.parametrize("retry", [False, True])
def test_an_end_at_each_step_does_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, causal: Path, retry: bool
) -> None:
    """As test_kills has it, with items that wait for each other."""
    codec = ef.Codec.load(causal)
    monkeypatch.setattr(chunk_codes, "MANY_LANES", 3)
    source, before, out = tmp_path / "in", tmp_path / "before", tmp_path / "out"
    write_short_files(source, 7)
    options: dict[str, Any] = {"format": "ecdc", "shard_size": 2, "threads": 1, "entropy": "lm"}
    ef.tokenize(source, tmp_path / "whole", codec, **options)
    whole = files_of(tmp_path / "whole")
    if retry:
        options["retry_failed"] = True
        good = {n: (source / f"000{n}.wav").read_bytes() for n in (1, 4)}
        for number in good:
            (source / f"000{number}.wav").write_bytes(b"no audio")
        ef.tokenize(source, before, codec, **options)
        for number, data in good.items():
            (source / f"000{number}.wav").write_bytes(data)
    for step in range(1000):
        shutil.rmtree(out, ignore_errors=True)
        if retry:
            shutil.copytree(before, out)
        with monkeypatch.context() as patch:
            changes = end_at(patch, step)
            with contextlib.suppress(Ended):
                ef.tokenize(source, out, codec, **options)
        ef.tokenize(source, out, codec, **options)
        assert files_of(out) == whole, step
        if len(changes) <= step // 2:
            break
    assert step > 20


def test_another_entropy_model_is_another_run(tmp_path: Path, causal: Path) -> None:
    write_short_files(tmp_path / "in", 2)
    program = tmp_path / causal.name
    shutil.copy(causal, program)
    entropy = program.with_suffix(store.ENTROPY_SUFFIX)
    shutil.copy(causal.with_suffix(store.ENTROPY_SUFFIX), entropy)
    options: dict[str, Any] = {"codec": program, "format": "ecdc", "entropy": "static"}
    ef.tokenize(tmp_path / "in", tmp_path / "out", **options)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    model = ef.Codec.load(program).entropy_model
    assert model is not None
    assert manifest["identity"]["entropy_hash"] == model.hash
    assert manifest["settings"]["entropy"] == "static"
    sizes = Sizes(8, 2, 1, 20, model.codebook_size, model.n_codebooks, 16)
    header, tensors = entropy_tensors(random_weights(1, sizes), sizes)
    write_entropy_model(entropy, {**header, "name": model.name}, tensors)
    with pytest.raises(ValueError, match=f"entropy_hash: expected [0-9a-f]*, found {model.hash}"):
        ef.tokenize(tmp_path / "in", tmp_path / "out", **options)


def test_what_is_refused(tmp_path: Path, corpus: Path, program: Path) -> None:
    """Before anything is written."""
    out = tmp_path / "out"
    for options, words in (
        ({"format": "npy", "entropy": "lm"}, "entropy: lm is for format ecdc alone"),
        ({"format": "parquet", "entropy": "static"}, "expected none with parquet"),
        ({"format": "ecdc", "entropy": "zip"}, "entropy: expected none, static, lm, found 'zip'"),
        ({"format": "ecdc", "entropy": None}, "entropy: expected none, static, lm, found None"),
    ):
        with pytest.raises(ValueError, match=words):
            ef.tokenize(corpus, out, program, **options)
    bare = tmp_path / program.name
    shutil.copy(program, bare)
    with pytest.raises(ValueError, match="'lm' needs an entropy model"):
        ef.tokenize(corpus, out, bare, format="ecdc", entropy="lm")
    assert not out.exists()


def test_a_worker_of_a_cluster_has_the_entropy_model(
    tmp_path: Path, corpus: Path, program: Path
) -> None:
    pytest.importorskip("fsspec", reason="engine ray needs the extra ray")
    how = Settings(str(program), format="ecdc", shard_size=3, entropy="lm")
    codec = ef.Codec.load(program)
    items = list_items(corpus)
    output = ClusterOutput(str(tmp_path / "out"), how, codec, items)
    output.begin()
    entropy_model = program.with_suffix(store.ENTROPY_SUFFIX).read_bytes()
    coder = ShardCoder(
        how, output.folder, output.state, program.read_bytes(), str(tmp_path), entropy_model
    )
    rows = [
        coder({"shard": shard, "items": pickle.dumps(group), "retry": False})
        for shard, group in enumerate(output.shards())
    ]
    assert not any(row["error"] for row in rows)
    output.finish(json.loads(row["record"]) for row in rows)
    ef.tokenize(corpus, tmp_path / "local", program, format="ecdc", entropy="lm", shard_size=3)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "local")
