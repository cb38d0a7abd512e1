"""Formats of tokens: every field comes back, the same tokens are the same bytes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_items import WEIRD_KEYS, assert_equal, make_tokens, tiny_codec

from encodec_fast.batch.formats import FORMATS, format_of
from encodec_fast.batch.names import encoded_key
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec

NAMES = tuple(FORMATS)
PACKED = tuple(name for name in NAMES if not FORMATS[name].per_item)


@pytest.fixture(autouse=True)
def _libraries(request: pytest.FixtureRequest) -> None:
    if "parquet" in request.node.name:
        pytest.importorskip("pyarrow", reason="parquet needs the extra tokenize")


@pytest.fixture(params=["reflect", "segments"])
def codec(request: pytest.FixtureRequest, tmp_path: Path) -> Codec:
    return tiny_codec(tmp_path, request.param)


def target(folder: Path, name: str, number: int = 0) -> Path:
    return folder / f"file-{number}{FORMATS[name].suffix}"


@pytest.mark.parametrize("name", NAMES)
def test_every_field_comes_back(name: str, codec: Codec, tmp_path: Path) -> None:
    format = FORMATS[name]
    items = [make_tokens(codec, key, seed) for seed, key in enumerate(WEIRD_KEYS)]
    items.append(make_tokens(codec, "bare", 99, extra={}, source=""))
    groups = [[item] for item in items] if format.per_item else [items]
    found = []
    for number, group in enumerate(groups):
        path = target(tmp_path, name, number)
        format.write(iter(group), path, codec)
        found += list(format.read(path, codec))
    assert len(found) == len(items)
    for one, expected in zip(found, items, strict=True):
        assert_equal(one, expected)
        wav = codec.decode(one.to_codes())
        np.testing.assert_array_equal(wav, codec.decode(expected.to_codes()))
        assert wav.shape == (1, expected.audio_length)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_tokens_are_the_same_bytes(name: str, codec: Codec, tmp_path: Path) -> None:
    format = FORMATS[name]
    items = [
        make_tokens(codec, f"key {number}", number)
        for number in range(1 if format.per_item else 50)
    ]
    paths = [tmp_path / "one", tmp_path / "other" / "place"]
    paths[1].parent.mkdir()
    format.write(items, paths[0], codec)
    # What does not change the tokens: the order of the extras, and how the codes lie in memory.
    again = [
        replace(
            item,
            codes=np.asfortranarray(item.codes),
            extra=dict(reversed(item.extra.items())),
        )
        for item in items
    ]
    format.write(iter(again), paths[1], codec)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    format.write([replace(items[0], source="elsewhere"), *items[1:]], paths[1], codec)
    assert paths[0].read_bytes() != paths[1].read_bytes()


@pytest.mark.parametrize("name", PACKED)
def test_thousands_of_items(name: str, tmp_path: Path) -> None:
    codec = tiny_codec(tmp_path)
    items = [make_tokens(codec, f"{number:05d}/ü", number) for number in range(5000)]
    path = target(tmp_path, name)
    FORMATS[name].write(iter(items), path, codec)
    count = 0
    for found, expected in zip(FORMATS[name].read(path), items, strict=True):
        assert_equal(found, expected)
        count += 1
    assert count == len(items)


@pytest.mark.parametrize("name", PACKED)
def test_a_shard_of_nothing(name: str, codec: Codec, tmp_path: Path) -> None:
    path = target(tmp_path, name)
    FORMATS[name].write([], path, codec)
    assert list(FORMATS[name].read(path)) == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": ""}, "key"),
        ({"key": "k" * 5000}, "key"),
        ({"key": "\udc80"}, "key"),
        ({"source": "\udc80"}, "source"),
        ({"codes": np.zeros((2, 3), np.int64)}, "codes"),
        ({"codes": np.zeros((0, 3), np.uint16)}, "codes"),
        ({"segment_frames": (1, 1)}, "segment_frames"),
        ({"scales": np.array([np.nan], np.float32)}, "scales"),
        ({"audio_length": 0}, "audio_length"),
    ],
)
def test_what_no_item_has_is_refused(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    codec = tiny_codec(tmp_path)
    tokens = make_tokens(codec, "key", 3, codes=np.zeros((2, 3), np.uint16), segment_frames=(3,))
    with pytest.raises(ValueError, match=message):
        FORMATS[name].write([replace(tokens, **changes)], target(tmp_path, name), codec)


@pytest.mark.parametrize("name", ["safetensors"])
def test_a_key_twice_is_refused(name: str, tmp_path: Path) -> None:
    codec = tiny_codec(tmp_path)
    items = [make_tokens(codec, "same", 1), make_tokens(codec, "same", 2)]
    with pytest.raises(ValueError, match=r"'same'.*twice"):
        FORMATS[name].write(items, target(tmp_path, name), codec)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(), min_size=1, max_size=50))
def test_encoded_keys_are_safe_and_reversible(key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        with pytest.raises(ValueError, match="Unicode"):
            encoded_key(key)
        return
    name = encoded_key(key)
    assert unquote(name) == key
    assert name.isascii() and name.isprintable() and "." not in name and "\\" not in name
    assert all(name.split("/"))


def test_known_suffixes() -> None:
    assert {format_of(f"a/b.c{format.suffix}") for format in FORMATS.values()} == {
        *FORMATS.values()
    }
    assert format_of("x.SAFETENSORS") is FORMATS["safetensors"]
    assert format_of("x.wav") is None and format_of("npy") is None


@st.composite
def any_tokens(draw: st.DrawFn) -> Tokens:
    n_q = draw(st.integers(1, 4))
    segments = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    codes = draw(st.lists(st.integers(0, 65535), min_size=n_q * sum(segments), max_size=80))
    levels = st.floats(0, 2.0**127, width=32)
    scales = st.lists(levels, min_size=len(segments), max_size=len(segments))
    texts = st.text(min_size=1, max_size=20)
    return Tokens(
        key=draw(texts),
        codes=np.array(codes[: n_q * sum(segments)], np.uint16).reshape(n_q, -1),
        segment_frames=segments,
        scales=draw(st.none() | scales.map(lambda found: np.array(found, np.float32))),
        audio_length=draw(st.integers(1, 1 << 53)),
        sample_rate=draw(st.integers(1, 1 << 22)),
        model=draw(texts),
        model_hash=draw(st.text(max_size=8)),
        source=draw(st.text(max_size=20)),
        extra=draw(st.dictionaries(st.text(max_size=20), st.binary(max_size=40), max_size=3)),
    )


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ecdc"])
@settings(max_examples=60, deadline=None)
@given(tokens=any_tokens())
def test_anything_comes_back(name: str, tokens: Tokens) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        codec = tiny_codec(Path(scratch))
        path = target(Path(scratch), name)
        FORMATS[name].write([tokens], path, codec)
        (found,) = FORMATS[name].read(path)
    assert_equal(found, tokens)
