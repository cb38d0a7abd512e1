"""Our configurations on folders of one's own: plain, of one kind, with a manifest, unusable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from recordings import write_corpus

from encodec_fast import cli
from encodec_fast.training.codec_settings import CodecSettings
from encodec_fast.training.configuration import config_names, load_settings, read_task
from encodec_fast.training.data import open_batches
from encodec_fast.training.items import Items
from encodec_fast.training.sources import SourceSettings, find_recordings, unfiltered

CODECS = [name for name in config_names() if read_task(name) == "codec"]
RATE = 16000


def write(folder: Path, *names: str, silent: bool = False) -> None:
    random = np.random.default_rng(1)
    folder.mkdir(exist_ok=True)
    for name in names:
        samples = random.uniform(-0.5, 0.5, 3 * RATE) * (not silent)
        soundfile.write(folder / name, samples, RATE)


def items(name: str, folder: Path) -> Items:
    overrides = [f"audio={folder / 'audio'}", f"out={folder / 'out'}", "data.pan=0"]
    settings = load_settings(CodecSettings, name, overrides)
    return Items(settings.placed_data, RATE, 1, 8000, 1)


@pytest.mark.parametrize("name", CODECS)
def test_a_plain_folder_trains(tmp_path: Path, name: str) -> None:
    write(tmp_path / "audio", "ann.wav", "bob.wav", "eve.wav")
    found = items(name, tmp_path)
    assert {found[number].kind.split("+")[0] for number in range(20)} == {"unknown"}
    assert all("found unknown" in note for note in found.notes)
    assert bool(found.notes) == (name != "encodec_48khz")  # which names no kinds but in its filters
    settings = load_settings(CodecSettings, name, [f"audio={tmp_path / 'audio'}", "out=o"])
    assert unfiltered(settings.placed_data.train[0])


@pytest.mark.parametrize("name", ["nano_24khz", "stereo_48khz", "encodec_24khz"])
@pytest.mark.parametrize("kind", ["speech", "birds"])
def test_a_folder_of_one_kind_trains(tmp_path: Path, name: str, kind: str) -> None:
    names = ["ann.wav", "bob.wav", "eve.wav"]
    write(tmp_path / "audio", *names)
    rows = "".join(f"{each},train,{kind},CC0-1.0\n" for each in names)
    (tmp_path / "audio" / "MANIFEST.csv").write_text("path,split,kind,licence\n" + rows)
    found = items(name, tmp_path)
    kinds = {part for number in range(20) for part in found[number].kind.split("+")}
    assert kinds == {kind}
    absent = "music, sound" if kind == "speech" else ""
    assert all(f"found {kind}" in note and absent in note for note in found.notes) and found.notes


def test_a_manifest_decides_and_its_kinds_count(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    write_corpus(tmp_path / "audio", seconds=2.0)
    write(tmp_path / "audio", "unlisted.wav")
    through = SourceSettings(str(tmp_path / "audio"), where={"split": "train"})
    named = SourceSettings(str(tmp_path / "audio" / "MANIFEST.csv"), where={"split": "train"})
    assert find_recordings(through) == find_recordings(named) and not unfiltered(through)
    with pytest.raises(ValueError, match="no column 'splt' to filter by, found path"):
        find_recordings(SourceSettings(str(tmp_path / "audio"), where={"splt": "train"}))
    found = items("nano_24khz", tmp_path)  # of three kinds one, the last, is held out
    assert found.notes == ["kind_weights: no recordings of sound: found music, speech"]
    drawn = [found[number].kind for number in range(300)]
    single = [kind for kind in drawn if "+" not in kind]
    assert single.count("speech") / len(single) == pytest.approx(0.5 / 0.77, abs=0.1)


def test_notes_are_told(tmp_path: Path) -> None:
    write(tmp_path / "audio", "ann.wav", "bob.wav", "eve.wav")
    overrides = [f"audio={tmp_path / 'audio'}", f"out={tmp_path}"]
    data = load_settings(CodecSettings, "nano_24khz", overrides).placed_data
    told: list[str] = []
    next(open_batches(data, RATE, 1, 8000, 2, seed=1, note=told.append))
    assert told == ["kind_weights: no recordings of speech, music, sound: found unknown"]


def test_links_to_what_is_gone_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "audio", "ann.wav", "bob.wav", "eve.wav")
    (tmp_path / "audio" / "cut.wav").symlink_to("nowhere.wav")
    (tmp_path / "audio" / "also.wav").symlink_to("ann.wav")
    (tmp_path / "folder").mkdir()
    (tmp_path / "audio" / "folder.wav").symlink_to(tmp_path / "folder")
    found = [Path(r.path).name for r in find_recordings(SourceSettings(str(tmp_path / "audio")))]
    assert found == ["also.wav", "ann.wav", "bob.wav", "cut.wav", "eve.wav"]
    ((name, reason),) = items("encodec_24khz", tmp_path).corpus.skipped
    assert Path(name).name == "cut.wav" and "No such file" in reason


def test_an_unusable_folder_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("silent"), "ann.wav", "bob.wav", "eve.wav", silent=True)
    Path("junk").mkdir()
    for name in ("ann.wav", "bob.wav", "eve.wav"):
        (Path("junk") / name).write_text("no audio")
    Path("void").mkdir()
    for folder, reason in (
        ("silent", "bob.wav: silent"),
        ("junk", "Format not recognised"),
        ("void", "void: expected recordings, found none"),
    ):
        assert cli.main(["train", "nano_24khz", f"audio={folder}", "out=run"]) == 1
        told = capsys.readouterr().err
        assert reason in told and "kind_weights" not in told and not Path("run").exists()
    assert cli.main(["train", "nano_24khz", "out=run"]) == 1
    assert "audio: expected the folder of the recordings" in capsys.readouterr().err
