"""The journal: records that any cut, damage or full disk leaves sound up to there."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encodec_fast.batch.journal import Journal, pack_tokens, unpack_tokens
from encodec_fast.batch.tokens import Tokens


def tokens(key: str = "a/b.wav", scales: bool = True) -> Tokens:
    random = np.random.default_rng(len(key))
    return Tokens(
        key=key,
        codes=random.integers(0, 1024, (4, 9)).astype(np.uint16),
        segment_frames=(5, 4),
        scales=np.array([0.1, 1e-38], np.float32) if scales else None,
        audio_length=1234,
        sample_rate=24000,
        model="m",
        model_hash="12345678",
        source="où",
        extra={"txt": b"said\0", "json": b""},
    )


@pytest.mark.parametrize("scales", [True, False])
def test_tokens_come_back(tmp_path: Path, scales: bool) -> None:
    journal = Journal(tmp_path / "j")
    assert list(journal.records()) == []
    written = [tokens("x" * n, scales) for n in (1, 20, 300)]
    places = [journal.append(*pack_tokens(one)) for one in written]
    records = list(journal.records())
    assert [record.offset for record in records] == places
    for one, place in zip(written, places, strict=True):
        again = unpack_tokens(journal.read(place), 24000, "m", "12345678")
        assert np.array_equal(again.codes, one.codes) and again.codes.dtype == np.uint16
        assert (again.scales is None) is not scales
        if one.scales is not None and again.scales is not None:
            assert again.scales.tobytes() == one.scales.tobytes()
        same = ("key", "segment_frames", "audio_length", "source", "extra", "model", "sample_rate")
        assert all(getattr(again, name) == getattr(one, name) for name in same)
    journal.remove()
    journal.remove()
    assert not journal.path.exists()


def test_a_cut_anywhere_loses_the_last_record_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    for number in range(3):
        journal.append({"n": number}, bytes(number * 10))
    whole = journal.path.read_bytes()
    ends = [*[record.offset for record in journal.records()][1:], len(whole)]
    for length in range(len(whole)):
        journal.path.write_bytes(whole[:length])
        sound = sum(end <= length for end in ends)
        assert [record.about["n"] for record in journal.records()] == list(range(sound))
        assert journal.path.stat().st_size == (ends[sound - 1] if sound else 0)
        journal.append({"n": "more"})  # goes on behind what is sound
        assert [record.about["n"] for record in journal.records()] == [*range(sound), "more"]


def test_damage_ends_the_journal_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    places = [journal.append({"n": number}, b"data") for number in range(3)]
    whole = journal.path.read_bytes()
    for position in range(places[1], places[2]):
        data = bytearray(whole)
        data[position] ^= 0x40
        journal.path.write_bytes(data)
        with pytest.raises(OSError, match="damaged at byte"):
            journal.read(places[1])
        assert [record.about["n"] for record in journal.records()] == [0]


def test_a_full_disk_leaves_the_records_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "j")
    journal.append({"n": 0})
    before = journal.path.read_bytes()
    opening = Path.open

    class Full:
        """A file on a disk with room for ten bytes."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 10

        def write(self, data: Any) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.room -= 10
            return int(self.file.write(bytes(data[:10])))

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *a, **k: Full(opening(*a, **k)))
        with pytest.raises(OSError, match="No space left") as caught:
            journal.append({"n": 1})
    assert caught.value.filename == str(journal.path)
    assert journal.path.read_bytes() == before
    journal.append({"n": 2})
    assert [record.about["n"] for record in journal.records()] == [0, 2]
