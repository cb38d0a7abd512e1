"""Items to tokens: the codes of each recording alone, whatever lies beside it or fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from data_sets import RECORDINGS, alone, same_codes, sound, sound_bytes, write_corpus, write_tar
from programs import tiny_program

import encodec_fast as ef
from encodec_fast.batch import coding
from encodec_fast.batch.coding import Failure, code_items, longest_first
from encodec_fast.batch.items import FileLocation, Item
from encodec_fast.batch.run import coded_items
from encodec_fast.batch.sources import list_items
from encodec_fast.batch.tokens import Tokens
from encodec_fast.many import blocks, segment_blocks

KINDS = [("reflect", 1), ("constant", 2), ("segments", 2)]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind[0])
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ef.Codec:
    return ef.Codec.load(tiny_program(tmp_path_factory.mktemp("program"), *request.param))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


def outcomes(codec: ef.Codec, items: list[Item], lanes: int = 8) -> dict[str, Any]:
    found = list(code_items(codec.program, codec.n_codebooks, iter(items), lanes))
    assert len({outcome.key for outcome in found}) == len(found)
    return {outcome.key: outcome for outcome in found}


def check(codec: ef.Codec, item: Item, tokens: Any, source: Any = None) -> None:
    """Whether tokens are those of the recording alone."""
    assert isinstance(tokens, Tokens)
    assert tokens.codes.dtype == np.uint16 and tokens.codes.shape[0] == codec.n_codebooks
    assert (tokens.source, tokens.model_hash) == (item.source, codec.program.hash)
    assert same_codes(tokens.to_codes(), alone(codec, source or item.source))


@pytest.mark.parametrize("lanes", [1, 3, 8])
def test_codes_are_those_of_each_recording_alone(codec: ef.Codec, corpus: Path, lanes: int) -> None:
    """Formats, rates and channel counts mixed, in either order."""
    items = list_items(corpus)
    for order in (items, items[::-1]):
        found = outcomes(codec, order, lanes)
        assert len(found) == len(RECORDINGS)
        for item in items:
            check(codec, item, found[item.key])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_show(codec: ef.Codec, corpus: Path, threads: int) -> None:
    items = list_items(corpus)
    found = {t.key: t for t in coded_items(codec.program, codec.n_codebooks, items, threads)}
    assert len(found) == len(items)
    for item in items:
        check(codec, item, found[item.key])


def test_lengths_around_blocks_and_segments(codec: ef.Codec, tmp_path: Path) -> None:
    for length in (1, 2, 5, 6, 7, 89, 90, 91, 99, 100, 101, 180, 190, 383, 384, 385, 768, 769):
        wav = sound("x", 8000, codec.channels, length / 8000)
        soundfile.write(tmp_path / f"{length}.wav", wav, 8000, subtype="FLOAT")
    items = list_items(tmp_path)
    found = outcomes(codec, items)
    for item in items:
        check(codec, item, found[item.key])
        assert found[item.key].audio_length == int(Path(item.key).stem)


def test_extras_travel_along(codec: ef.Codec, tmp_path: Path) -> None:
    members = {"1.wav": sound_bytes("1.wav", 8000, 1, 0.2), "1.txt": b"said", "1.json": b"{}"}
    (item,) = list_items(write_tar(tmp_path / "a.tar", members))
    tokens = outcomes(codec, [item])[item.key]
    (tmp_path / "1.wav").write_bytes(members["1.wav"])
    check(codec, item, tokens, tmp_path / "1.wav")
    assert tokens.extra == {"txt": b"said", "json": b"{}"}


def broken_files(folder: Path) -> dict[str, str]:
    """Writes files that cannot be coded; what the reason has to say, by name."""
    folder.mkdir()
    wav = sound("x", 8000, 1, 1.5)
    flac = bytearray(sound_bytes("long.flac", 8000, 1, 20.0))
    flac[len(flac) // 2 : len(flac) // 2 + 3000] = bytes(3000)
    for name, data in (("damaged.flac", bytes(flac)), ("empty.wav", b""), ("text.wav", b"no")):
        (folder / name).write_bytes(data)
    soundfile.write(folder / "nothing.wav", wav[:0], 8000)
    soundfile.write(folder / "short.wav", wav[:1], 96000)
    for name, value in (("nan.wav", np.nan), ("infinite.wav", np.inf)):
        bad = wav.copy()
        bad[11000] = value  # in the midst of it, after several blocks
        soundfile.write(folder / name, bad, 8000, subtype="FLOAT")
    (folder / "gone.wav").symlink_to(folder / "nowhere")
    return {
        "damaged.flac": "",
        "empty.wav": "",
        "text.wav": "",
        "nothing.wav": "no audio",
        "short.wav": "too short",
        "nan.wav": "sample 11000 of channel 0 is nan",
        "infinite.wav": "sample 11000 of channel 0 is inf",
        "gone.wav": "No such file",
    }


@pytest.mark.parametrize("lanes", [1, 2, 8])
def test_a_file_that_fails_changes_no_other(
    codec: ef.Codec, corpus: Path, tmp_path: Path, lanes: int
) -> None:
    reasons = broken_files(tmp_path / "broken")
    good, bad = list_items(corpus), list_items(tmp_path / "broken")
    mixed = [item for pair in zip(bad, good, strict=False) for item in pair] + bad[len(good) :]
    found = outcomes(codec, mixed, lanes)
    assert len(found) == len(mixed)
    for item in good[: len(bad)]:
        check(codec, item, found[item.key])
    for item in bad:
        failure = found[item.key]
        if item.key == "damaged.flac" and isinstance(failure, Tokens):
            continue  # libsndfile may read on behind the damage
        assert isinstance(failure, Failure) and failure.source == item.source
        assert reasons[item.key] in failure.reason and "\n" not in failure.reason


def test_every_file_fails(codec: ef.Codec, tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.wav").write_bytes(b"no audio")
    found = outcomes(codec, list_items(tmp_path), 3)
    assert len(found) == 30 and all(isinstance(one, Failure) for one in found.values())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_no_permission(codec: ef.Codec, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(sound_bytes("a.wav", 8000, 1, 0.1))
    (tmp_path / "a.wav").chmod(0)
    (failure,) = outcomes(codec, list_items(tmp_path)).values()
    assert failure.reason == "Permission denied"


def test_too_loud_for_a_level(codec: ef.Codec, tmp_path: Path) -> None:
    if not codec.normalize:
        pytest.skip("the model has no levels")
    loud = sound("x", 8000, 2, 0.2)
    loud[700:] *= 1e38
    soundfile.write(tmp_path / "loud.wav", loud, 8000, subtype="FLOAT")
    (tmp_path / "good.wav").write_bytes(sound_bytes("good.wav", 8000, 2, 0.2))
    good, bad = list_items(tmp_path)
    for order in ([good, bad], [bad, good]):
        found = outcomes(codec, order)
        check(codec, good, found["good.wav"])
        assert "too loud" in found["loud.wav"].reason


class Exploding:
    """A library that fails in a way of its own."""

    def open(self) -> Any:
        raise KeyError("of a library")


def test_an_error_of_a_library_is_the_items(codec: ef.Codec, corpus: Path) -> None:
    items = list_items(corpus)
    found = outcomes(codec, [Item("odd", Exploding(), "odd place"), *items])
    assert found["odd"] == Failure("odd", "odd place", "KeyError: 'of a library'")
    assert all(isinstance(found[item.key], Tokens) for item in items)


def test_items_are_opened_when_their_turn_comes(codec: ef.Codec, tmp_path: Path) -> None:
    """As many as there are lanes, not all that are listed."""
    opened: set[str] = set()
    most = 0

    class Watched(FileLocation):
        def open(self) -> Any:
            nonlocal most
            opened.add(self.path)
            most = max(most, len(opened))
            return super().open()

    data = sound_bytes("x.wav", 8000, 1, 0.3)
    items = []
    for number in range(40):
        (tmp_path / f"{number}.wav").write_bytes(data)
        place = str(tmp_path / f"{number}.wav")
        items.append(Item(f"{number}", Watched(place), place))
    for outcome in code_items(codec.program, 1, items, 4):
        assert isinstance(outcome, Tokens)
        opened.discard(outcome.source)
    assert 1 <= most <= 6  # segments of a group end together


def test_an_event_stops_the_work(codec: ef.Codec, corpus: Path) -> None:
    stopped = threading.Event()
    items = list_items(corpus) * 50
    found = 0
    for _ in code_items(codec.program, 1, items, 2, stopped):
        found += 1
        stopped.set()
    assert found <= 6


def test_threads_end_with_the_iteration(codec: ef.Codec, corpus: Path) -> None:
    before = threading.active_count()
    running: Iterator[Any] = coded_items(codec.program, 1, list_items(corpus) * 50, 3)
    next(running)
    running.close()  # type: ignore[attr-defined]  # a generator
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.daemon:
            thread.join(5)
    assert threading.active_count() <= before


def test_an_error_of_ours_ends_all_threads(
    codec: ef.Codec, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(coding, "_outcome", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        list(coded_items(codec.program, 1, list_items(corpus), 2))


def test_the_longest_first_in_each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coding, "WINDOW", 3)
    sizes = [10_000, 30_000, 20_000, 0, 96_000, 9_600_000]
    items = [Item(str(n), FileLocation(""), "a.wav", size) for n, size in enumerate(sizes)]
    assert [item.key for item in longest_first(items)] == list("120534")
    # A second of MP3 has fewer bytes than one of PCM.
    mp3, wav = (Item(s, FileLocation(""), f"a.{s}", 90_000) for s in ("mp3", "wav"))
    assert mp3.seconds > wav.seconds


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_blocks_and_segments_do_not_depend_on_chunks(chunk: int) -> None:
    for length in (0, 1, 63, 64, 65, 128, 199, 200, 201, 1000):
        wav = np.arange(length, dtype=np.float32)[None]
        chunks = [wav[:, n : n + chunk] for n in range(0, length, chunk)]
        found = list(blocks(chunks, 128, 64))
        assert [block.last for block in found] == [False] * (len(found) - 1) + [True] * bool(found)
        assert np.array_equal(np.concatenate([wav[:, :0], *(b.audio for b in found)], 1), wav)
        assert all(b.audio.shape[1] == (64 if n else 128) for n, b in enumerate(found[:-1]))
        pieces = list(segment_blocks(chunks, 100, 90))
        starts = range(0, length, 90)
        assert [piece.last for piece in pieces] == [
            n == len(starts) - 1 for n in range(len(starts))
        ]
        for start, piece in zip(starts, pieces, strict=True):
            assert np.array_equal(piece.audio, wav[:, start : start + 100])
