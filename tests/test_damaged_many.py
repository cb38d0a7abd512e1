"""Many files at once, some of them bad: messages say whose, and the others do not notice."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import tiny_program
from version_1 import ENTROPIES, KINDS, codes_of, compressed, container_size, outcome, recording

import encodec_fast as ef
from encodec_fast.chunks import ChunkWriter
from encodec_fast.segments import Piece


@pytest.fixture(scope="module", params=KINDS)
def codec(request: pytest.FixtureRequest, tiny_entropies: Path) -> ef.Codec:
    return ef.Codec.load(tiny_entropies / f"tiny_{request.param}.safetensors")


@pytest.fixture(scope="module")
def causal(tiny_entropies: Path) -> ef.Codec:
    return ef.Codec.load(tiny_entropies / "tiny_reflect.safetensors")


def test_damage_is_what_it_is_alone(codec: ef.Codec) -> None:
    """Whatever becomes of a file, the others do not notice, and messages name it."""
    rng = np.random.default_rng(1)
    good = [compressed(codec, recording(n), "lm") for n in (1200, 5000, 300)]
    expected = [codec.decompress(data) for data in good]
    kinds = set()
    for turn in range(60):
        changed = bytearray(compressed(codec, recording(4000), ENTROPIES[turn % 3]))
        begin = 0 if turn % 4 == 0 else container_size(bytes(changed))
        for _ in range(1 + turn % 3):
            changed[rng.integers(begin, len(changed))] ^= 1 << int(rng.integers(8))
        if turn % 5 == 0:
            del changed[int(rng.integers(len(changed))) :]
        bad = bytes(changed)
        for strict in (False, True):
            alone, told = outcome(lambda bad=bad, strict=strict: codec.decompress(bad, strict))
            datas = [good[0], good[1], bad, good[2]]
            found, messages = outcome(
                lambda datas=datas, strict=strict: codec.decompress_many(datas, strict)
            )
            assert messages == [message.replace("data:", "datas[2]:") for message in told]
            if isinstance(alone, str):
                assert found == alone.replace("data:", "datas[2]:")
                kinds.add("error")
                continue
            kinds.add("damaged")
            expectation = [expected[0], expected[1], alone, expected[2]]
            for one, other in zip(found, expectation, strict=True):
                assert np.array_equal(one, other)
    assert kinds == {"error", "damaged"}


def test_a_bad_payload_of_a_language_model(codec: ef.Codec) -> None:
    """Its checksum fits, so that only the language model finds it: what follows in its key interval
    is lost with it, whether chunks are decoded one by one, interval by interval or with others."""
    wav = recording(4000)
    whole = compressed(codec, wav, "lm", key=4)
    put = ChunkWriter.write

    def damage(self: ChunkWriter, payload: bytes, frames: int) -> None:
        put(self, payload[:8] if self._number == 5 else payload, frames)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChunkWriter, "write", damage)
        bad = compressed(codec, wav, "lm", key=4)
    frames = 17 if codec.segment_length else 40
    lost = slice(5 * frames, (6 if codec.segment_length else 8) * frames)
    expected = codes_of(codec, whole)
    expected[:, lost] = -1
    for live in (False, True):
        assert np.array_equal(codes_of(codec, bad, live), expected)
    with pytest.warns(ef.DamageWarning, match=r"datas\[1\]: damaged, lost"):
        found = codec.decompress_many([whole, bad])
    with pytest.warns(ef.DamageWarning, match="data: damaged, lost"):
        assert np.array_equal(found[1], codec.decompress(bad))
    assert np.array_equal(found[0], codec.decompress(whole))


@pytest.mark.parametrize("value", [5, None, "abc", b"abc", {"a": 1}])
def test_what_is_no_list(causal: ef.Codec, value: Any) -> None:
    found = type(value).__name__
    with pytest.raises(ValueError, match=f"wavs: expected a list, found {found}"):
        causal.compress_many(value)
    with pytest.raises(ValueError, match=f"wavs: expected a list, found {found}"):
        causal.encode_many(value)
    with pytest.raises(ValueError, match=f"datas: expected a list, found {found}"):
        causal.decompress_many(value)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_bad_recording_is_named(codec: ef.Codec, threads: int) -> None:
    before = threading.active_count()
    many = ef.Codec(codec.program, threads, codec._entropy_file)
    good = [recording(2000)] * 6
    for bad, words in (
        (np.zeros((2, 100), np.float32), r"wavs\[3\]: expected shape \[1, any\], found \[2, 100\]"),
        (np.zeros((1, 0), np.float32), r"wavs\[3\]: expected at least one sample, found none"),
        (np.full((1, 100), np.nan), r"wavs\[3\]: expected finite"),
        ("abc", r"wavs\[3\]: expected floating-point"),
    ):
        with pytest.raises(ValueError, match=words):
            many.compress_many([*good[:3], bad, *good[3:]], entropy="lm")
    data = codec.compress(good[0], entropy="lm")
    for other, error, words in (
        (None, ValueError, r"datas\[3\]: expected the bytes of a file, found NoneType"),
        (b"", EOFError, r"datas\[3\]: truncated"),
        (b"RIFF" * 20, ValueError, r"datas\[3\]: not an ECDC file"),
        (data[:20], EOFError, r"datas\[3\]: truncated"),
        (data[: container_size(data)], EOFError, r"datas\[3\]: truncated"),
    ):
        with pytest.raises(error, match=words):
            many.decompress_many([data, data, data, other, data])
    assert threading.active_count() == before


def test_bad_settings_come_before_any_work(causal: ef.Codec, tmp_path: Path) -> None:
    unread = [None]  # would be an error itself
    for arguments, words in (
        ({"entropy": "zip"}, "entropy: expected none, static, lm"),
        ({"bandwidth": 7.0}, "bandwidth: tiny_reflect supports"),
        ({"version": 2}, "version: expected 0 or 1, found 2"),
        ({"version": 0, "entropy": "lm"}, "in version 0, 'lm' needs"),
    ):
        with pytest.raises(ValueError, match=words):
            causal.compress_many(unread, **arguments)
    alone = ef.Codec.load(tiny_program(tmp_path, "reflect"))
    with pytest.raises(ValueError, match="'lm' needs an entropy model"):
        alone.compress_many(unread, entropy="lm")
    data = causal.compress(recording(100), entropy="lm")
    with pytest.raises(ValueError, match=r"datas\[1\]: written with the entropy model"):
        alone.decompress_many([alone.compress(recording(100)), data])


def test_segments_that_do_not_fit(tiny_entropies: Path) -> None:
    codec = ef.Codec.load(tiny_entropies / "tiny_segments.safetensors")
    stream = io.BytesIO()
    writer = codec.piece_writer(2)(stream)
    for frames in (17, 3, 17):
        writer.write(Piece(np.zeros((2, frames), np.uint16), 1.0, True))
    writer.finish(3 * 90)
    with pytest.raises(ValueError, match="a segment's length does not fit"):
        codec.decompress(stream.getvalue())
    with pytest.raises(ValueError, match=r"datas\[1\]: codes: a segment's length does not fit"):
        codec.decompress_many([codec.compress(recording(100)), stream.getvalue()])


TWICE = """
import sys
import encodec_fast as ef
for path in sys.argv[1:]:
    ef.decompress(open(path, "rb").read())
"""


def test_files_damaged_in_the_same_place_are_both_told(tmp_path: Path) -> None:
    """Python's own filter shows equal warnings of one line once."""
    codec = ef.Codec.load("nano_24khz")
    rng = np.random.default_rng(0)
    paths = []
    for number in range(2):
        wav = (0.1 * rng.standard_normal((1, 25 * 24000))).astype(np.float32)
        data = bytearray(codec.compress(wav))
        data[len(data) // 2] ^= 255
        paths.append(tmp_path / f"{number}.ecdc")
        paths[-1].write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", TWICE, *map(str, paths)], capture_output=True, text=True, check=True
    )
    assert done.stderr.count("DamageWarning: data: damaged, lost 10.00 s to 20.00 s") == 2
