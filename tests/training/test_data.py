"""The corpus cache and its crops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from recordings import write_corpus

from encodec_fast.training.data import Crops, build_cache, decode, select


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    write_corpus(tmp_path)
    return tmp_path


def test_only_training_files_without_share_alike_terms(corpus: Path) -> None:
    chosen = {path.name: kind for path, kind in select(corpus)}
    assert chosen == {"a.flac": "speech", "b.flac": "music", "c.flac": "sound"}


def test_decode_mixes_down_and_resamples(corpus: Path) -> None:
    samples = decode(corpus / "a.flac", 24000)
    assert samples.dtype == np.int16 and samples.shape == (48000,)


def test_cache_holds_every_file(corpus: Path) -> None:
    cache = corpus / "cache.s16"
    build_cache(corpus, cache, 24000)
    index = json.loads((corpus / "cache.s16.json").read_text())
    assert index["sample_rate"] == 24000
    samples = np.fromfile(cache, dtype=np.int16)
    assert len(samples) == sum(entry["length"] for entry in index["files"])
    entry = index["files"][1]
    expected = decode(corpus / "b.flac", 24000)
    assert np.array_equal(samples[entry["start"] : entry["start"] + entry["length"]], expected)


def test_crops_have_the_asked_shape_and_never_clip(corpus: Path) -> None:
    build_cache(corpus, corpus / "cache.s16", 24000)
    batch = Crops(corpus / "cache.s16", 4800, seed=1).batch(16)
    assert batch.shape == (16, 1, 4800)
    assert batch.abs().max() <= 0.99 + 1e-6
    again = Crops(corpus / "cache.s16", 4800, seed=1).batch(16)
    assert batch.equal(again)


def test_too_short_recordings_are_an_error(corpus: Path) -> None:
    build_cache(corpus, corpus / "cache.s16", 24000)
    with pytest.raises(ValueError, match="no recording longer than 48000 samples"):
        Crops(corpus / "cache.s16", 48000, seed=1)


def test_an_empty_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "MANIFEST.csv").write_text("path,split,kind,licence\n")
    with pytest.raises(ValueError, match="no training recordings"):
        build_cache(tmp_path, tmp_path / "cache.s16", 24000)
    assert not (tmp_path / "cache.s16").exists()
