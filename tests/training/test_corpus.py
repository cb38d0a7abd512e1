"""What is held out for validation."""

from __future__ import annotations

from encodec_fast.training.corpus import held_out


def test_what_is_cut_from_one_original_is_held_out_together() -> None:
    names = [f"d/song{letter}_{part}.ogg" for letter in "abcdefghij" for part in (0, 1, 12)]
    held = [name for name, out in zip(names, held_out(names), strict=True) if out]
    assert held == [f"d/songi_{part}.ogg" for part in (0, 1, 12)]
    # Long numbers and numbers alone name recordings of their own.
    many = [f"d/voice_{n}.mp3" for n in range(19687301, 19687341)]
    assert [place for place, out in enumerate(held_out(many)) if out] == [8, 24]
    assert sum(held_out([f"{n:04}.wav" for n in range(40)])) == 2
    assert held_out(["d/a_1.wav", "d/a_2.wav"]) == [False, False]
    assert held_out(["d/a_1.wav", "d/b_2.wav"]) == [False, True]


def test_equal_names_in_two_folders_are_two_originals() -> None:
    names = [f"{folder}/{part:03}.wav" for folder in "xy" for part in range(12)]
    held = [name for name, out in zip(names, held_out(names), strict=True) if out]
    assert held == ["x/008.wav"]
    shards = ["x/0.tar:d/a_1.wav", "x/1.tar:d/a_2.wav", "x/1.tar:d/b_1.wav", "y/0.tar:d/a_1.wav"]
    assert held_out(shards) == [False, False, False, True]
    assert held_out(shards[:2]) == [False, False]
    assert held_out(["x/clip_1.wav", "x/clip_2.wav", "y\\clip_1.wav"]) == [False, False, True]
