"""Programs with bfloat16 weights: the engine computes in float32 with the rounded values."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from programs import HOP, Tensors, describe, from_bfloat16, to_bfloat16, write_program

import encodec_fast as ef

Floats = npt.NDArray[np.float32]

MATRICES = (".weight", ".recurrent")
SAMPLES = 101 * HOP + 1  # more rows than any block of the kernels, and no whole number of frames


def rounded(tensors: Tensors, suffixes: tuple[str, ...]) -> tuple[Tensors, Tensors]:
    """The tensors with these endings as bfloat16, and the same values as float32."""
    halves = {n: to_bfloat16(a) if n.endswith(suffixes) else a for n, a in tensors.items()}
    widened = {n: from_bfloat16(a) if a.dtype == np.uint16 else a for n, a in halves.items()}
    return halves, widened


def load(path: Path, kind: str, width: int, suffixes: tuple[str, ...]) -> list[ef.Codec]:
    """A tiny model with bfloat16 tensors and its equal in float32."""
    header, tensors = describe(kind, channels=2, width=width)
    pair = rounded(tensors, suffixes)
    return [ef.Codec.load(write_program(path, header, one)) for one in pair]


def recording(seed: int) -> Floats:
    return np.random.default_rng(seed).standard_normal((2, SAMPLES)).astype(np.float32)


def by_frames(codec: ef.Codec, wav: Floats) -> tuple[npt.NDArray[np.uint16], Floats]:
    """Codes and audio of streams that are given a frame per push."""
    encoder, decoder = codec.stream_encoder(12.0), codec.stream_decoder()
    cuts = pairwise([*range(0, wav.shape[1], HOP), wav.shape[1]])
    codes = [encoder.push(wav[:, a:b]) for a, b in cuts] + [encoder.flush()]
    joined = np.concatenate(codes, axis=1)
    parts = [decoder.push(joined[:, i : i + 1]) for i in range(joined.shape[1])]
    return joined, np.concatenate([*parts, decoder.flush()], axis=1)


def test_rounding_is_to_nearest_even() -> None:
    values = np.array([1.0, 1 + 2.0**-8, 1 + 3 * 2.0**-8, -1.00391, 1e-40], np.float32)
    assert to_bfloat16(values).tolist() == [0x3F80, 0x3F80, 0x3F82, 0xBF81, 0x0001]


@pytest.mark.parametrize("kind", ["reflect", "constant", "segments"])
@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 12, 15, 16, 17, 31, 32, 33])
def test_bfloat16_matrices_are_their_values(tmp_path: Path, kind: str, width: int) -> None:
    """Odd numbers of rows and columns, the few columns that run over rows, and whole panels."""
    halves, widened = load(tmp_path / "p", kind, width, MATRICES)
    wav = recording(width)
    codes = halves.encode(wav, 12.0)
    expected = widened.encode(wav, 12.0)
    assert all(map(np.array_equal, codes.codes, expected.codes))
    assert codes.scales == expected.scales
    audio = halves.decode(codes)
    assert audio.tobytes() == widened.decode(codes).tobytes()
    if kind != "segments":
        frames, heard = by_frames(halves, wav)
        assert np.array_equal(frames, codes.codes[0])
        assert heard[:, :SAMPLES].tobytes() == audio.tobytes()


def test_rounding_shows(tmp_path: Path) -> None:
    """The test above would notice weights that are not rounded, or rounded otherwise."""
    header, tensors = describe("reflect", channels=2)
    exact = ef.Codec.load(write_program(tmp_path / "p", header, tensors))
    halves, _ = load(tmp_path / "p", "reflect", 6, MATRICES)
    codes = exact.encode(recording(0), 12.0)
    assert not np.array_equal(exact.decode(codes), halves.decode(codes))


@pytest.mark.parametrize("suffix", ["bias", "scale", "offset", "codebooks", ""])
def test_other_bfloat16_tensors_are_widened(tmp_path: Path, suffix: str) -> None:
    halves, widened = load(tmp_path / "p", "segments", 6, (suffix,))
    wav = recording(1)
    codes = halves.encode(wav, 12.0)
    assert all(map(np.array_equal, codes.codes, widened.encode(wav, 12.0).codes))
    assert np.array_equal(halves.decode(codes), widened.decode(codes))


@pytest.mark.parametrize("name", ["e5.weight", "d3.weight", "e5.bias", "codebooks"])
@pytest.mark.parametrize("bits", [0x7F80, 0xFF80, 0x7FC0, 0xFF81])
def test_bfloat16_must_be_finite(tmp_path: Path, name: str, bits: int) -> None:
    header, tensors = describe("reflect")
    tensors[name] = to_bfloat16(tensors[name])
    tensors[name].flat[-1] = bits
    path = write_program(tmp_path / "bad", header, tensors)
    with pytest.raises(ValueError, match=f"{name}: has values that are not finite"):
        ef.Codec.load(path)
    tensors[name].flat[-1] = 0x7F7F  # the largest finite one
    ef.Codec.load(write_program(tmp_path / "good", header, tensors))


@pytest.mark.parametrize("name", ["e7.weight", "e7.recurrent"])
def test_matrices_of_an_lstm_are_stored_alike(tmp_path: Path, name: str) -> None:
    header, tensors = describe("reflect")
    tensors[name] = to_bfloat16(tensors[name])
    path = write_program(tmp_path / "mixed", header, tensors)
    with pytest.raises(ValueError, match="operation 6: weight and recurrent: expected both or"):
        ef.Codec.load(path)
