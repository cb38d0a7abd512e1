"""Training batches: determinism, mixing, balance of kinds, cache, bad recordings, validation."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from recordings import PAPER_MIXING
from test_reading import bad_recordings

from encodec_fast.training.data import (
    Batch,
    DataSettings,
    open_batches,
    validation_clips,
)
from encodec_fast.training.data_settings import MixingStrategy, ReverbSettings
from encodec_fast.training.items import Items
from encodec_fast.training.sources import SourceSettings

RATE, SAMPLES = 8000, 2000
SECONDS = {"speech": 8.0, "music": 2.0, "sound": 1.0}
DRY = ReverbSettings(probability=0.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Per kind four recordings of one length; the level says which kind it is."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(1)
    lines = ["path,kind"]
    for kind, level in (("speech", 0.1), ("music", 0.2), ("sound", 0.4)):
        for letter in "abcd":
            wave = random.uniform(-level, level, (int(SECONDS[kind] * 16000), 2))
            soundfile.write(folder / f"{kind}_{letter}.flac", wave, 16000)
            lines.append(f"{kind}_{letter}.flac,{kind}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")
    return folder


def settings(corpus: Path, **changes: Any) -> DataSettings:
    source = SourceSettings(str(corpus / "list.csv"))
    return replace(DataSettings(train=(source,), valid=(source,), reverb=DRY), **changes)


def batches(chosen: DataSettings, count: int, channels: int = 1, **more: Any) -> list[Batch]:
    return list(islice(open_batches(chosen, RATE, channels, SAMPLES, 4, 7, **more), count))


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.waves, b.waves) and a[1:3] == b[1:3]


@pytest.mark.parametrize("cached", [False, True])
def test_a_batch_depends_on_seed_and_number_alone(
    corpus: Path, tmp_path: Path, cached: bool
) -> None:
    chosen = settings(
        corpus,
        mixing=PAPER_MIXING,
        reverb=ReverbSettings(0.5),
        cache=str(tmp_path) if cached else None,
    )
    first = batches(chosen, 6)
    assert all(b.waves.shape == (4, 1, SAMPLES) and b.waves.dtype == torch.float32 for b in first)
    assert len({b.sources[0] for b in first}) == 6
    again = batches(replace(chosen, workers=2), 6)
    assert all(map(same, first, again))
    assert all(map(same, first[4:], batches(chosen, 2, start_step=4)))
    parts = [batches(chosen, 3, rank=rank, world=2) for rank in range(2)]
    for whole, left, right in zip(first, *parts, strict=False):
        assert torch.equal(whole.waves, torch.cat([left.waves, right.waves]))
        assert whole.sources == left.sources + right.sources
    other = next(open_batches(chosen, RATE, 1, SAMPLES, 4, 8))
    assert not torch.equal(other.waves, first[0].waves)


def test_batches_leave_the_global_random_numbers_alone(corpus: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    batches(settings(corpus), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_items_are_what_their_sources_say(corpus: Path) -> None:
    """Level, place and channels of every item, from the files it names."""
    chosen = settings(corpus, mixing=(MixingStrategy(1.0, 2),), gain_db=(-8.0, -8.0))
    for batch in islice(open_batches(chosen, 16000, 2, SAMPLES, 4, 7), 3):
        for wave, kinds, sources in zip(batch.waves, batch.kinds, batch.sources, strict=True):
            expected, names = np.zeros((2, SAMPLES)), []
            for source in sources.split(" + "):
                name, second = source.rsplit("@", 1)
                x, _ = soundfile.read(name, always_2d=True)
                start = round(float(second) * 16000)
                expected += x[start : start + SAMPLES].T / np.abs(x).max() * 10 ** (-8 / 20)
                names.append(Path(name).name.partition("_")[0])
            # The level of a long recording is that of excerpts.
            assert np.allclose(wave.numpy(), expected, rtol=2e-3, atol=1e-3)
            assert kinds == "+".join(sorted(names))


def drawn(chosen: DataSettings, count: int) -> list[str]:
    items = Items(chosen, RATE, 1, SAMPLES, 1)
    return [items[number].kind for number in range(count)]


def test_strategies_come_with_their_probabilities(corpus: Path, tmp_path: Path) -> None:
    kinds = Counter(drawn(settings(corpus, mixing=PAPER_MIXING, cache=str(tmp_path)), 1500))
    by_size = Counter(kind.count("+") + 1 for kind in kinds.elements())
    assert by_size[2] / 1500 == pytest.approx(0.24, abs=0.03)
    assert by_size[3] / 1500 == pytest.approx(0.12, abs=0.03)
    assert kinds["music"] / 1500 == pytest.approx(0.32, abs=0.03)
    assert (kinds["speech"] + kinds["sound"]) / 1500 == pytest.approx(0.32, abs=0.03)
    assert not any("music" in kind for kind in kinds if kind.count("+") == 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"speech": 8 / 11, "music": 2 / 11, "sound": 1 / 11}),
        ({"kind_temperature": 3.0}, {"speech": 2 / 4.26, "music": 1.26 / 4.26, "sound": 1 / 4.26}),
        ({"kind_weights": {"music": 3.0, "sound": 1.0}}, {"music": 0.75, "sound": 0.25}),
    ],
)
def test_kinds_are_balanced(
    corpus: Path, tmp_path: Path, changes: Any, expected: dict[str, float]
) -> None:
    kinds = Counter(drawn(settings(corpus, cache=str(tmp_path), **changes), 1200))
    assert kinds.keys() == expected.keys()
    for kind, share in expected.items():
        assert kinds[kind] / 1200 == pytest.approx(share, abs=0.045)


def test_longer_recordings_are_drawn_more_often(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for name, seconds in (("long", 6), ("short", 2)):
        soundfile.write(tmp_path / f"{name}.wav", random.uniform(-1, 1, seconds * RATE), RATE)
    source = (SourceSettings(str(tmp_path)),)
    chosen = DataSettings(source, source, reverb=DRY, cache=str(tmp_path / "cache"))
    items = Items(chosen, RATE, 1, SAMPLES, 1)
    share = np.mean(["long.wav" in items[number].source for number in range(600)])
    assert share == pytest.approx(0.75, abs=0.06)


def test_single_music_stays_dry_and_other_items_get_a_room(corpus: Path, tmp_path: Path) -> None:
    """The room of a recorded response that delays: the sum of a crop and itself, later."""
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    response = np.zeros(400)
    response[[0, 300]] = 1.0, 0.9
    soundfile.write(rooms / "room.wav", response, RATE, subtype="FLOAT")
    reverb = ReverbSettings(1.0, str(rooms))
    for kind, wet in (("music", False), ("speech", True)):
        only = {"kind_weights": {kind: 1.0}, "gain_db": (-9.0, -9.0), "cache": str(tmp_path)}
        plain = Items(settings(corpus, **only), RATE, 1, SAMPLES, 1)[0].wave[0]
        found = Items(settings(corpus, reverb=reverb, **only), RATE, 1, SAMPLES, 1)[0].wave[0]
        expected = plain.copy()
        if wet:
            expected[300:] += 0.9 * plain[:-300]
            expected *= np.sqrt(np.square(plain).mean() / np.square(expected).mean())
        assert np.allclose(found, expected, atol=1e-5)
    (rooms / "room.wav").write_text("no room")
    items = Items(settings(corpus, reverb=reverb, **only), RATE, 1, SAMPLES, 1)
    with pytest.raises(ValueError, match=r"found nothing usable in 64 draws .*room\.wav"):
        items[0]


def test_panning_is_for_two_channels(corpus: Path) -> None:
    chosen = settings(corpus, pan=1.0)
    waves = batches(chosen, 1, channels=2)[0].waves
    plain = batches(replace(chosen, pan=0.0), 1, channels=2)[0].waves
    balance = [np.log(float(w[0].std() / w[1].std())) for w in (*waves, *plain)]
    assert np.abs(balance[:4]).max() > 0.5 and np.abs(balance[4:]).max() < 0.2
    with pytest.raises(ValueError, match="pan: expected 0 for 1 channels"):
        batches(chosen, 1)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cached", [False, True])
def test_bad_recordings_are_skipped_and_told_once(
    tmp_path: Path, workers: int, cached: bool
) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    bad = bad_recordings(folder)
    random = np.random.default_rng(1)
    soundfile.write(folder / "good.wav", random.uniform(-0.5, 0.5, RATE), RATE)
    lines = "\n".join(["path", *bad, "good.wav"])
    (folder / "list.csv").write_text(lines)
    source = (SourceSettings(str(folder / "list.csv")),)
    chosen = DataSettings(
        source, source, reverb=DRY, workers=workers, cache=str(tmp_path) if cached else None
    )
    found = list(islice(open_batches(chosen, RATE, 1, 4000, 8, 7), 24))
    told = [(Path(name).name, reason) for batch in found for name, reason in batch.skipped]
    assert sorted(name for name, _ in told) == sorted(bad)
    reasons = dict(told)
    for name, message in bad.items():
        if "|" not in message and not (cached and name in ("silent.wav", "none.wav")):
            assert message.split(":")[0].removeprefix("found ") in reasons[name], name
    assert all(torch.isfinite(batch.waves).all() for batch in found)
    names = {Path(source.split("@")[0]).name for batch in found for source in batch.sources}
    assert "good.wav" in names and names <= {"good.wav", "nan.wav", "inf.wav", "cut.flac"}


@pytest.mark.parametrize("cached", [False, True])
def test_a_source_without_a_usable_recording_is_an_error(
    corpus: Path, tmp_path: Path, cached: bool
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.wav").write_text("no audio")
    bad = SourceSettings(str(tmp_path / "bad"))
    cache = str(tmp_path / "cache") if cached else None
    for train in ((bad,), (SourceSettings(str(corpus / "list.csv")), bad)):
        with pytest.raises(ValueError, match=r"expected a usable recording, found none .*a\.wav"):
            open_batches(DataSettings(train, cache=cache), RATE, 1, SAMPLES, 4, 7)
    with pytest.raises(ValueError, match=r"found none in 12 .*too short: expected at least 10 s"):
        open_batches(settings(corpus, cache=cache), RATE, 1, 10 * RATE, 4, 7)


def test_silence_alone_ends_after_some_draws(tmp_path: Path) -> None:
    wave = np.zeros(RATE)
    wave[0] = 0.5  # nor is it silent as a whole
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    source = (SourceSettings(str(tmp_path)),)
    found = open_batches(DataSettings(source, source), RATE, 1, SAMPLES, 4, 7)
    with pytest.raises(ValueError, match="found nothing usable in 64 draws"):
        list(islice(found, 20))


def test_probabilities_that_add_up_to_about_1(corpus: Path) -> None:
    """numpy is stricter about it than the settings are."""
    chosen = settings(corpus, mixing=(MixingStrategy(0.3333333),) * 3)
    assert batches(chosen, 1)[0].waves.shape == (4, 1, SAMPLES)


def test_settings_that_do_not_fit(corpus: Path) -> None:
    for changes, message in (
        (
            {"mixing": (MixingStrategy(1.0, 1, ("musik",)),)},
            "mixing: .*'musik': did you mean music?",
        ),
        ({"kind_weights": {"musik": 1.0}}, "kind_weights: .*'musik': did you mean music?"),
        ({"kind_weights": {"music": 0.0}}, "kind_weights: expected one above 0 among music"),
    ):
        with pytest.raises(ValueError, match=message):
            batches(settings(corpus, **changes), 1)
    for changes, message in (
        ({"train": ()}, "train: expected at least one source"),
        ({"mixing": ()}, "mixing: expected probabilities that add up to 1, found 0"),
        ({"kind_weights": {"music": -1.0}}, "kind_weights.music: expected at least 0"),
        ({"kind_temperature": 0.0}, "kind_temperature: expected above 0"),
        ({"kind_temperature": 2.0, "kind_weights": {"music": 1.0}}, "kind_temperature: expected 1"),
        ({"gain_db": (6.0, -10.0)}, "gain_db: expected two rising"),
        ({"quietest": 1.0}, "quietest: expected 0 to below 1"),
        ({"pan": 1.5}, "pan: expected 0 to 1"),
        ({"workers": -1}, "workers: expected 0 to 256"),
    ):
        with pytest.raises(ValueError, match=message):
            settings(corpus, **changes)
    with pytest.raises(ValueError, match="batch: expected a multiple of 3 processes, found 4"):
        batches(settings(corpus), 1, world=3)
    with pytest.raises(ValueError, match="seed, start_step: expected at least 0"):
        batches(settings(corpus), 1, start_step=-1)


def test_validation_is_never_trained_on(corpus: Path) -> None:
    chosen = settings(corpus, valid=())
    clips = validation_clips(chosen, RATE, 2, SAMPLES, 5)
    held = {source.rsplit("@", 1)[0] for _, source, _ in clips}
    assert len(clips) == 5 and {Path(name).stem for name in held} == {"sound_a"}
    trained = {
        name.rsplit("@", 1)[0]
        for batch in batches(chosen, 60)
        for source in batch.sources
        for name in source.split(" + ")
    }
    assert len(trained) == 11 and not trained & held


def test_one_original_leaves_none_for_validation(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for part in range(3):
        soundfile.write(tmp_path / f"clip_{part:04}.wav", random.uniform(-1, 1, RATE), RATE)
    chosen = DataSettings((SourceSettings(str(tmp_path)),), reverb=DRY)
    assert batches(chosen, 1)[0].waves.shape == (4, 1, SAMPLES)
    with pytest.raises(ValueError, match=r"3 recordings .* single one .*clip_0000.* data\.valid"):
        validation_clips(chosen, RATE, 1, SAMPLES, 1)


def test_validation_clips_are_fixed_and_of_all_kinds(corpus: Path) -> None:
    clips = validation_clips(settings(corpus), 16000, 2, SAMPLES, 7)
    assert Counter(kind for kind, _, _ in clips) == {"music": 3, "sound": 2, "speech": 2}
    again = validation_clips(settings(corpus), 16000, 2, SAMPLES, 7)
    for (kind, source, wave), other in zip(clips, again, strict=True):
        name, second = source.rsplit("@", 1)
        x, _ = soundfile.read(name, dtype="float32")
        start = round(float(second) * 16000)
        assert np.allclose(wave, x[start : start + SAMPLES].T) and Path(name).name.startswith(kind)
        assert source == other[1] and np.array_equal(wave, other[2])
    with pytest.raises(ValueError, match="valid: expected a recording of at least 100 s"):
        validation_clips(settings(corpus), RATE, 1, 100 * RATE, 7)
