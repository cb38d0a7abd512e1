"""Packed bits and checksums of the native module; also run under the sanitizers."""

from __future__ import annotations

import numpy as np
import pytest

from encodec_fast import _core


@pytest.mark.parametrize("bits", range(1, 17))
def test_packed_bits(bits: int) -> None:
    """Against integers of any size, in one piece and in pieces that end within bytes."""
    rng = np.random.default_rng(bits)
    for count in (0, 1, 7, 8, 9, 64, 333, 9000):
        values = rng.integers(0, 1 << bits, count).astype(np.uint16)
        number = 0
        for i, value in enumerate(values[:400].tolist()):
            number |= value << (i * bits)
        packer = _core.BitPacker(bits)
        data = packer.push(values) + packer.flush()
        size = -(-count * bits // 8)
        assert len(data) == size
        whole = min(count, 400) * bits // 8
        assert data[:whole] == number.to_bytes(800, "little")[:whole]
        cuts = np.sort(rng.integers(0, count + 1, 3))
        parts = [packer.push(part.copy()) for part in np.split(values, cuts)]
        assert b"".join(parts) + packer.flush() == data
        found = _core.BitUnpacker(bits).push(data)
        np.testing.assert_array_equal(found[:count], values)
        unpacker = _core.BitUnpacker(bits)
        pieces = np.split(np.frombuffer(data, np.uint8), np.sort(rng.integers(0, size + 1, 3)))
        again = [unpacker.push(piece.tobytes()) for piece in pieces]
        np.testing.assert_array_equal(np.concatenate(again), found)


def test_a_value_that_does_not_fit_leaves_the_packer_as_it_was() -> None:
    packer = _core.BitPacker(10)
    first = packer.push(np.uint16([1, 2, 3]))
    values = np.arange(9000).astype(np.uint16) % 1024
    values[8500] = 1024
    with pytest.raises(ValueError, match="1024 does not fit into 10 bits"):
        packer.push(values)
    rest = packer.push(np.uint16([4])) + packer.flush()
    other = _core.BitPacker(10)
    assert first + rest == other.push(np.uint16([1, 2, 3, 4])) + other.flush()


def test_checksum() -> None:
    assert _core.crc32c(b"") == 0
    assert _core.crc32c(b"123456789") == 0xE3069283
    assert _core.crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4
    assert _core.crc32c(b"\xff" * 32) == 0x62A8AB43
    data = np.random.default_rng(1).bytes(200)
    for cut in range(len(data)):
        assert _core.crc32c(data[cut:], _core.crc32c(data[:cut])) == _core.crc32c(data)
