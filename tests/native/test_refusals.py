"""What the native module refuses, and that extreme numbers stay inside their arrays; also run
under the sanitizers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from encodec_fast import _core

HUGE = 1 << 62
BOOKS = np.random.default_rng(0).standard_normal((2, 33, 3)).astype(np.float32)


def graph(inputs: int, outputs: int) -> _core.Graph:
    made = _core.Graph(inputs)
    weight, bias = np.ones((inputs, outputs), np.float32), np.zeros(outputs, np.float32)
    made.conv(0, -1, False, 1, 1, 0, 0, False, weight, bias, None, None, 0.0)
    return made


def encoder(lanes: Any) -> _core.Encoder:
    return _core.Encoder(graph(2, 3), _core.Codebooks(BOOKS), lanes, False)


def decoder(lanes: Any) -> _core.Decoder:
    return _core.Decoder(graph(3, 2), _core.Codebooks(BOOKS), lanes, False)


@pytest.mark.parametrize("make", [encoder, decoder])
def test_numbers_of_streams(make: Any) -> None:
    for lanes in (0, -1, -(1 << 63), (1 << 16) + 1, (1 << 63) - 1):
        with pytest.raises(ValueError, match=rf"batch: expected 1\.\.65536, found {lanes}"):
            make(lanes)
    for lanes in (1 << 63, -(1 << 70), 1.5, "2", None):
        with pytest.raises(TypeError):
            make(lanes)
    coder = make(2)
    for lane in (-1, 2, HUGE):
        with pytest.raises(ValueError, match="lane: no such stream"):
            coder.reset(lane)


def test_none_in_the_place_of_a_model() -> None:
    books = _core.Codebooks(BOOKS)
    for arguments in ((None, books), (graph(2, 3), None), (books, graph(2, 3))):
        with pytest.raises(TypeError):
            _core.Encoder(*arguments, 1, False)


AUDIO = np.zeros((2, 5), np.float32)
CODES = np.zeros((2, 4), np.uint16)


@pytest.mark.parametrize(
    "other",
    [
        AUDIO[0],
        AUDIO[None],
        np.zeros((3, 5), np.float32),
        np.zeros((HUGE >> 2, 0), np.float32),
        AUDIO.astype(complex),
        AUDIO.astype(object),
        AUDIO.tolist(),
        None,
    ],
    ids=lambda value: str(getattr(value, "shape", type(value).__name__)),
)
def test_wrong_audio(other: Any) -> None:
    coder = encoder(2)
    with pytest.raises((ValueError, TypeError)):
        coder.run([AUDIO, other], [True, True], [1.0, 1.0], 2)
    for n_q in (0, -1, 3, HUGE, -(1 << 63)):
        with pytest.raises(ValueError, match="n_q"):
            coder.run([AUDIO, AUDIO], [True, True], [1.0, 1.0], n_q)
    for last, scales in (([True], [1.0] * 2), ([True] * 2, [1.0]), ([True] * 3, [1.0] * 3)):
        with pytest.raises(ValueError, match="blocks: expected one array"):
            coder.run([AUDIO, AUDIO], last, scales, 2)
    with pytest.raises(ValueError):
        coder.run([], [], [], 2)
    assert [codes.shape for codes in coder.run([AUDIO] * 2, [True] * 2, [1.0] * 2, 2)] == [
        (2, 5),
        (2, 5),
    ]


@pytest.mark.parametrize(
    "other",
    [
        CODES[0],
        CODES[:1],
        np.zeros((3, 4), np.uint16),
        np.zeros((HUGE >> 2, 0), np.uint16),
        CODES + 33,
        CODES + 65535,
        None,
    ],
    ids=lambda value: str(getattr(value, "shape", type(value).__name__)),
)
def test_wrong_codes(other: Any) -> None:
    coder = decoder(2)
    for pair in ((CODES, other), (other, other)):
        if pair[0] is other and other is not None and other.shape == (1, 4):
            continue  # one codebook in both streams is right
        with pytest.raises((ValueError, TypeError)):
            coder.run(pair, [True, True], [1.0, 1.0])
    with pytest.raises(ValueError):
        coder.run([CODES[:0]] * 2, [True, True], [1.0, 1.0])
    assert coder.run([CODES] * 2, [True] * 2, [1.0] * 2)[1].shape == (2, 4)


def test_wrong_latents_and_codes_of_codebooks() -> None:
    books = _core.Codebooks(BOOKS)
    latents = np.zeros((4, 3), np.float32)
    for n_q in (0, -1, 3, HUGE):
        with pytest.raises(ValueError, match="n_q: expected"):
            books.encode(latents, n_q)
    for wrong in (np.zeros((4, 2), np.float32), np.zeros((HUGE >> 2, 0), np.float32)):
        with pytest.raises(ValueError, match="latents: expected"):
            books.encode(wrong, 2)
    for wrong in (CODES[:0], np.zeros((3, 4), np.uint16), np.zeros((HUGE >> 2, 0), np.uint16)):
        with pytest.raises(ValueError, match="codes: expected"):
            books.decode(wrong)
    with pytest.raises(ValueError, match="below"):
        books.decode(CODES + 33)
    assert books.encode(latents[:0], 2).shape == (2, 0)
    assert books.decode(CODES[:, :0]).shape == (0, 3)
    for shape in ((0, 4, 3), (2, 0, 3), (2, 4, 0), (1025, 2, 1), (1, 65537, 1), (1, 2, 8193)):
        with pytest.raises(ValueError, match="codebooks"):
            _core.Codebooks(np.zeros(shape, np.float32))


@pytest.mark.parametrize("entries", [2, 15, 33, 1024])
def test_what_is_not_a_number_gets_a_valid_code(entries: int) -> None:
    """No entry is nearest, yet the code must exist: the decoder reads what it names."""
    rng = np.random.default_rng(entries)
    books = _core.Codebooks(rng.standard_normal((3, entries, 5)).astype(np.float32))
    latents = rng.standard_normal((40, 5)).astype(np.float32)
    for row, value in enumerate((np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45)):
        latents[6 * row : 6 * row + 5] = np.where(np.eye(5) == 1, value, latents[:5])
        latents[6 * row + 5] = value
    codes = books.encode(latents, 3)
    assert codes.max() < entries
    finite = np.isfinite(latents).all(axis=1)
    alone = books.encode(np.ascontiguousarray(latents[finite]), 3)
    assert np.array_equal(codes[:, finite], alone)
    for scale in (0.0, -0.0, float("nan"), float("inf"), 1e-45, -1.0):
        audio = np.ones((2, 7), np.float32)
        assert encoder(1).run([audio], [True], [scale], 2)[0].max() < 33


@pytest.mark.parametrize(
    "change",
    [
        {"kernel": HUGE},
        {"kernel": -2},
        {"stride": HUGE},
        {"stride": -1},
        {"stride": 0},
        {"pad_left": HUGE, "pad_right": -HUGE},
        {"pad_left": HUGE, "pad_right": HUGE},
        {"input": (1 << 31) - 1},
        {"add": (1 << 31) - 1},
        {"add": -2},
        {"weight": np.zeros((HUGE >> 2, 0), np.float32), "bias": np.zeros(0, np.float32)},
        {"weight": np.zeros((2, 0), np.float32), "bias": np.zeros(0, np.float32)},
        {"weight": np.zeros((0, 3), np.float32)},
        {"norm_scale": np.ones(2, np.float32), "norm_offset": np.ones(2, np.float32)},
    ],
    ids=lambda change: " ".join(change),
)
def test_extreme_convolutions(change: dict[str, Any]) -> None:
    made = _core.Graph(2)
    arguments: dict[str, Any] = {
        **{"input": 0, "add": -1, "elu": False, "kernel": 1, "stride": 1, "pad_left": 0},
        **{"pad_right": 0, "reflect": False, "weight": np.ones((2, 3), np.float32)},
        **{"bias": np.zeros(3, np.float32), "norm_scale": None, "norm_offset": None, "eps": 0.0},
    }
    with pytest.raises(ValueError):
        made.conv(**{**arguments, **change})
    assert made.conv(**arguments) == 1  # the graph is as it was


def test_extreme_transposed_convolutions_and_lstms() -> None:
    made = _core.Graph(2)
    weight = np.zeros((4, 6), np.float32)
    for stride, trim, size in ((HUGE, 0, 3), (0, 0, 3), (-1, 0, 3), (2, 3, 3), (2, -1, 3)):
        with pytest.raises(ValueError):
            bias = np.zeros(size, np.float32)
            made.conv_transpose(0, False, stride, trim, weight, bias, None, None, 0.0)
    for shapes in (
        ((2, 8), (2, 4), 8),
        ((0, 8), (2, 8), 8),
        ((2, 0), (0, 0), 0),
        ((2, 8), (2, 8), 7),
    ):
        with pytest.raises(ValueError):
            made.lstm(0, -1, False, *(np.zeros(shape, np.float32) for shape in shapes))
