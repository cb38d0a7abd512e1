"""The language model's coder: what it refuses, and what damaged data does. Also run under the
sanitizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from language_models import Sizes, native_model, random_codes, random_model, random_weights

from encodec_fast import _core

SIZES = Sizes()
HUGE = 1 << 62
CODES = random_codes(0, 3, 50, SIZES.entries)


@pytest.fixture
def coder() -> Any:
    return _core.LmCoder(random_model(0, SIZES), 3, 4)


def call(coder: Any, method: str, streams: list[int], codes: Any = CODES) -> Any:
    if method == "reset":
        return coder.reset(streams)
    if method == "decode":
        return coder.decode(streams, [b"abc"] * len(streams), [0] * len(streams))
    return getattr(coder, method)(streams, [codes] * len(streams))


METHODS = ["encode", "decode", "probabilities", "reset"]


@pytest.mark.parametrize("method", METHODS)
def test_streams(coder: Any, method: str) -> None:
    for streams, message in (
        ([4], r"streams: expected 0\.\.3, found 4"),
        ([0, -1], r"streams: expected 0\.\.3, found -1"),
        ([HUGE], "streams: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            call(coder, method, streams)
    with pytest.raises(TypeError):
        call(coder, method, [1 << 63])
    if method != "reset":
        with pytest.raises(ValueError, match="streams: 2 is named twice"):
            call(coder, method, [2, 0, 2])
    call(coder, method, [])
    call(coder, method, [3, 0])  # nothing of the above left a mark


def test_arrays(coder: Any) -> None:
    for method in ("encode", "probabilities"):
        encode = getattr(coder, method)
        with pytest.raises(ValueError, match="codes: expected one array per stream"):
            encode([0, 1], [CODES])
        with pytest.raises(ValueError, match=r"codes: expected \[n_q, steps\]"):
            encode([0], [CODES[:2]])
        with pytest.raises(ValueError, match="codes: expected values below the model's entries"):
            encode([0], [np.full((3, 2), SIZES.entries, np.uint16)])
        for other in (CODES[0], CODES.astype(np.float32), None, [[1]]):
            with pytest.raises(TypeError):
                encode([0], [other])
        assert len(encode([0], [CODES[:, :0]])) == 1


def test_frames_and_data(coder: Any) -> None:
    with pytest.raises(ValueError, match="data: expected one payload per stream"):
        coder.decode([0, 1], [b""], [1, 1])
    with pytest.raises(ValueError, match="frames: expected one count per stream"):
        coder.decode([0], [b""], [1, 1])
    for frames in (-1, (1 << 24) + 1, HUGE):
        with pytest.raises(ValueError, match=r"frames: expected 0\.\.16777216"):
            coder.decode([0], [b""], [frames])
    with pytest.raises(TypeError):
        coder.decode([0], ["text"], [1])
    assert coder.decode([0], [b""], [0])[0].shape == (3, 0)


def test_numbers_of_codebooks_and_streams() -> None:
    model = random_model(1, SIZES)
    for n_q in (0, 4, -1, HUGE):
        with pytest.raises(ValueError, match=rf"n_q: expected 1\.\.3, found {n_q}"):
            _core.LmCoder(model, n_q, 1)
    for batch in (0, -1, 65537, HUGE):
        with pytest.raises(ValueError, match=rf"batch: expected 1\.\.65536, found {batch}"):
            _core.LmCoder(model, 1, batch)
    with pytest.raises(TypeError):
        _core.LmCoder(None, 1, 1)
    _core.LmCoder(model, 3, 65536)  # takes next to no memory


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "heads": (lambda w: w["sizes"].update(heads=5), "dim: expected an even multiple of heads"),
    "no heads": (lambda w: w["sizes"].update(heads=0), r"heads: expected 1\.\.12, found 0"),
    "dim": (lambda w: w["sizes"].update(dim=2), r"dim: expected 4\.\.4096, found 2"),
    "huge dim": (lambda w: w["sizes"].update(dim=HUGE), r"dim: expected 4\.\.4096"),
    "past": (lambda w: w["sizes"].update(past=0), r"past: expected 1\.\.4095, found 0"),
    "long past": (lambda w: w["sizes"].update(past=4096), r"past: expected 1\.\.4095"),
    "entries": (lambda w: w["sizes"].update(entries=1), r"entries: expected 2\.\.65536, found 1"),
    "norm": (lambda w: w["norm"].__setitem__(0, w["norm"][0][:5]), "norm_in: expected 12 scales"),
    "qkv": (lambda w: swap(w["layers"][0], 0, 2), r"bias: expected one value per column"),
    "qkv shape": (lambda w: swap(w["layers"][1], 0, 2, 1, 3), r"qkv: expected a weight \[12, 36\]"),
    "up": (lambda w: swap(w["layers"][1], 4, 6, 5, 7), r"up: expected a weight \[12, 12\]"),
    "down": (
        lambda w: w["layers"][1].__setitem__(slice(6, 8), [np.ones((20, 18), np.float32), ONES]),
        r"down: expected a weight \[20, 12\]",
    ),
    "layer norm": (
        lambda w: w["layers"][0].__setitem__(11, np.ones(13, np.float32)),
        "norm2: expected 12 scales and offsets, found 12 and 13",
    ),
    "embedding": (
        lambda w: w["books"][0].__setitem__(0, w["books"][0][0][1:]),
        r"embedding: expected \[20, 12\]",
    ),
    "embedding's width": (
        lambda w: w["books"][0].__setitem__(0, w["books"][0][0].reshape(12, 20)),
        r"embedding: expected \[entries \+ 1, dim\]",
    ),
    "head": (
        lambda w: w["books"][2].__setitem__(slice(1, 3), [np.ones((12, 18), np.float32), ONES]),
        r"head: expected a weight \[12, 19\]",
    ),
    "no layers": (lambda w: w["layers"].clear(), "expected at least one layer and one codebook"),
    "no codebooks": (lambda w: w["books"].clear(), "expected at least one layer and one codebook"),
}
ONES = np.ones(18, np.float32)


def swap(items: list[Any], *places: int) -> None:
    for a, b in zip(places[::2], places[1::2], strict=True):
        items[a], items[b] = items[b], items[a]


@pytest.mark.parametrize("change", CHANGES)
def test_models(change: str) -> None:
    apply, message = CHANGES[change]
    weights = random_weights(2, SIZES)
    weights["sizes"] = dict(vars(SIZES))
    apply(weights)
    with pytest.raises(ValueError, match=message):
        native_model(weights, Sizes(**weights["sizes"])).seal()


def test_caches_are_bounded() -> None:
    weights = random_weights(3, Sizes(dim=2048, heads=1, layers=1, past=4095, width=1, entries=2))
    with pytest.raises(ValueError, match="past: a stream's keys and values would need more than"):
        native_model(weights, Sizes(dim=2048, heads=1, past=4095, entries=2)).seal()


def test_a_model_in_use_cannot_be_changed() -> None:
    model = random_model(4, SIZES)
    weights = random_weights(4, SIZES)
    _core.LmCoder(model, 1, 1)
    for add, arguments in ((model.layer, "layers"), (model.codebook, "books")):
        with pytest.raises(ValueError, match="is in use and cannot be changed"):
            add(*weights[arguments][0])


def test_mixed_types_are_refused() -> None:
    weights = random_weights(5, SIZES)
    model = random_model(5, SIZES)
    layer = weights["layers"][0]
    layer[2] = layer[2].astype(np.uint16)
    with pytest.raises(TypeError):
        model.layer(*layer)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_probabilities_that_are_not_finite(value: float) -> None:
    weights = random_weights(6, SIZES)
    weights["books"][1][2][:] = value
    coder = _core.LmCoder(native_model(weights, SIZES), 3, 2)
    with pytest.raises(ValueError, match="language model: its probabilities are not finite"):
        coder.encode([1], [CODES])
    with pytest.raises(ValueError, match="the last call for 1 failed; it must be reset"):
        coder.encode([0, 1], [CODES, CODES])
    assert coder.decode([0], [b"12345678"], [5]) == [None]
    coder.reset([0, 1])
    assert len(coder.probabilities([0, 1], [CODES, CODES])) == 2


def test_damaged_data(coder: Any) -> None:
    """Codes in range or None, of exactly the length asked for; other streams stay as they are."""
    rng = np.random.default_rng(7)
    codes = [random_codes(s, 3, 40, SIZES.entries) for s in range(4)]
    everyone = [0, 1, 2, 3]
    data = coder.encode(everyone, codes)
    lost = 0
    for _ in range(300):
        coder.reset(everyone)
        bad = bytearray(data[1])
        kind = rng.integers(4)
        if kind == 0:
            bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del bad[rng.integers(len(bad)) :]
        elif kind == 2:
            bad = bytearray(rng.bytes(int(rng.integers(200))))
        else:
            bad = bytearray(b"\xff" * int(rng.integers(200)))
        given = [data[0], bytes(bad), data[2], data[3]]
        found = coder.decode(everyone, given, [40] * 4)
        for s in (0, 2, 3):
            assert np.array_equal(found[s], codes[s])
        if found[1] is None:
            lost += 1
            with pytest.raises(ValueError, match="the last call for 1 failed; it must be reset"):
                coder.decode([1], [b""], [1])
            coder.decode([0], [b""], [0])
        else:
            assert found[1].shape == (3, 40) and found[1].max() < SIZES.entries
    assert lost > 50


def test_more_frames_than_the_data_holds(coder: Any) -> None:
    """Ends when the data does, not after all the frames."""
    data = coder.encode([0], [CODES])
    coder.reset([0])
    assert coder.decode([0], data, [1 << 24]) == [None]
