"""Settings of training data in configuration files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from recordings import PAPER_MIXING
from signals import REPOSITORY

from encodec_fast.training.codec_settings import CodecSettings
from encodec_fast.training.configuration import as_yaml, load_settings
from encodec_fast.training.data_settings import DataSettings


@dataclass(frozen=True)
class Holder:
    """Settings with training data, as the trainers' are."""

    data: DataSettings


@pytest.fixture
def documented(tmp_path: Path) -> Path:
    """The example of docs/training-data.md as a configuration file."""
    text = (REPOSITORY / "docs" / "training-data.md").read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert example is not None
    path = tmp_path / "example.yaml"
    path.write_text(example[1])
    return path


def test_the_documented_example_is_read(documented: Path, tmp_path: Path) -> None:
    data = load_settings(Holder, documented).data
    assert data.mixing == PAPER_MIXING
    given = load_settings(CodecSettings, "encodec_24khz", ["audio=a", "out=b"])
    assert given.data.mixing == PAPER_MIXING
    assert data.train[0].where == {"split": "train"}
    assert data.train[0].exclude == {"licence": ("GPL", "CC-BY-SA")}
    assert data.train[0].at_least == {"bandwidth_hz": 11500}
    assert data.train[1].kind == "speech" and data.train[2].path == "shards/music-*.tar"
    assert data.gain_db == (-10, 6) and data.reverb.rt60 == (0.3, 1.3)
    (tmp_path / "again.yaml").write_text(as_yaml(Holder(data)))
    assert load_settings(Holder, tmp_path / "again.yaml").data == data


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.gain_db=[6, -10]", r"gain_db: expected two rising"),
        ("data.reverb.rt60=[0, 1]", r"data\.reverb\.rt60: expected two rising times"),
        ("data.reverb.probability=2", r"data\.reverb\.probability: expected 0 to 1"),
        ("data.mixing=[{probability: 0.5}]", r"mixing: expected probabilities that add up to 1"),
        ("data.mixing=[{probability: 0}]", r"probability: expected above 0, at most 1"),
        ("data.mixing=[{sources: 0}]", r"sources: expected 1 to 16, found 0"),
        ("data.train=[{path: ''}]", r"path: expected a folder"),
        ("data.quitest=0.1", r"did you mean data\.quietest"),
    ],
)
def test_settings_that_make_no_sense(documented: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_settings(Holder, documented, [override])
