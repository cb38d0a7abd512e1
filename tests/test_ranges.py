"""Ranges of version 1 files: what is decoded, and how much is read for it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from signals import FloatArray
from version_1 import ENTROPIES, KINDS, RATE, compressed, reader_of, recording

import encodec_fast as ef
from encodec_fast import container, decoding


@pytest.fixture(scope="module", params=KINDS)
def codec(request: pytest.FixtureRequest, tiny_entropies: Path) -> ef.Codec:
    return ef.Codec.load(tiny_entropies / f"tiny_{request.param}.safetensors")


@pytest.fixture(scope="module")
def causal(tiny_entropies: Path) -> ef.Codec:
    return ef.Codec.load(tiny_entropies / "tiny_reflect.safetensors")


@pytest.mark.parametrize("entropy", ENTROPIES)
@pytest.mark.parametrize(
    ("start", "duration"), [(0.0, 0.1), (0.1, 0.05), (0.2, None), (0.37, 1.0), (0.499, 0.0005)]
)
def test_ranges(codec: ef.Codec, entropy: str, start: float, duration: float | None) -> None:
    data = compressed(codec, recording(4000), entropy)
    first, last = (
        round(start * RATE),
        None if duration is None else round((start + duration) * RATE),
    )
    expected = codec.decompress(data)[:, first:last]
    for live in (False, True):  # with the index and without

        def decoded(exact: bool, live: bool = live) -> FloatArray:
            reader = reader_of(codec, data, live)
            blocks = decoding.decoded(
                codec.program, reader, "file", start=start, duration=duration, exact=exact
            )
            return np.concatenate(list(blocks), axis=1)

        assert np.array_equal(decoded(exact=True), expected)
        near = decoded(exact=False)
        assert near.shape == expected.shape
        if codec.segment_length:
            assert np.array_equal(near, expected)


def test_a_range_reads_little(causal: ef.Codec) -> None:
    data = compressed(causal, recording(40000), "lm")

    class Counting(io.BytesIO):
        total = 0

        def read1(self, size: int | None = -1) -> bytes:
            data = super().read1(min(size or 0, 100))
            self.total += len(data)
            return data

    stream = Counting(data)
    recorded = causal.open_recording(stream, container.read_header(stream), "file")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "PREROLL_SECONDS", 0.01)
        blocks = decoding.decoded(causal.program, recorded, "file", start=4.5, duration=0.01)
        assert sum(block.shape[1] for block in blocks) == 80
    assert stream.total < len(data) / 4


@pytest.mark.parametrize("bad", [-1.0, float("nan"), 1e12, "1", True])
def test_ranges_that_are_none(causal: ef.Codec, tmp_path: Path, bad: object) -> None:
    (tmp_path / "a.ecdc").write_bytes(causal.compress(recording(4000)))
    for arguments in ({"start": bad}, {"duration": bad}):
        with pytest.raises(ValueError, match="expected seconds >= 0"):
            # Wrong types on purpose.
            ef.decompress_file(tmp_path / "a.ecdc", tmp_path / "a.wav", model=causal, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"start: expected less than the 0\.500 s"):
        ef.decompress_file(tmp_path / "a.ecdc", tmp_path / "a.wav", model=causal, start=0.5)
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize("length", [183, 184, 185, 186, 274])
def test_ranges_in_a_short_last_segment(tiny_entropies: Path, length: int) -> None:
    """The decode begins in a segment that is no full one: its weights are those of one."""
    codec = ef.Codec.load(tiny_entropies / "tiny_segments.safetensors")
    data = codec.compress(recording(length))
    whole = codec.decompress(data)
    for first in range(length):
        blocks = decoding.decoded(codec.program, reader_of(codec, data), "file", start=first / RATE)
        assert np.array_equal(np.concatenate(list(blocks), axis=1), whole[:, first:])


@pytest.mark.parametrize("length", range(1, 8))
def test_a_duration_beyond_the_end_without_an_index(codec: ef.Codec, length: int) -> None:
    data = codec.compress(recording(length))
    for duration in range(12):
        blocks = decoding.decoded(
            codec.program, reader_of(codec, data, live=True), "file", duration=duration / RATE
        )
        assert sum(block.shape[1] for block in blocks) == min(length, duration)
