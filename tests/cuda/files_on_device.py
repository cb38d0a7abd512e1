"""Files on a device: bytes and samples of lists, single files and damaged ones are the CPU's."""

from __future__ import annotations

import io
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from language_models import tiny_entropy
from programs import tiny_program
from version_1 import ENTROPIES, compressed, outcome, recording

import encodec_fast as ef
from encodec_fast import pipes

LENGTHS = (1, 95, 360, 7, 240)  # a step of the emulated device takes its time


def check(kind: str, folder: Path) -> None:
    """All ways to compress and decompress with one tiny model."""
    program = tiny_program(folder, kind)
    tiny_entropy(folder, kind)
    here, there = ef.Codec.load(program), ef.Codec.load(program, device="cuda")
    wavs = [recording(length) for length in LENGTHS]
    for entropy in ENTROPIES:
        datas = here.compress_many(wavs, 6.0, entropy)
        assert there.compress_many(wavs, 6.0, entropy) == datas
        assert there.compress(wavs[2], 6.0, entropy) == datas[2]
        expected = here.decompress_many(datas)
        for found, samples in zip(there.decompress_many(datas), expected, strict=True):
            assert np.array_equal(found, samples)
        assert np.array_equal(there.decompress(datas[2]), expected[2])
        # In chunks that go on from each other, as a live stream has them.
        target = io.BytesIO()
        source = io.BytesIO(wavs[2].T.tobytes())
        pipes.encode_pipe(there, source, target, sample_format="f32le", entropy=entropy, chunk=0.02)
        assert np.array_equal(here.decompress(target.getvalue()), expected[2])
        assert np.array_equal(there.decompress_many([target.getvalue()])[0], expected[2])
    rng = np.random.default_rng(0)
    for turn in range(6):
        bad = bytearray(compressed(here, recording(720), ENTROPIES[turn % 3], key=1))
        for _ in range(2):
            bad[int(rng.integers(len(bad) // 4, len(bad)))] ^= 1 << int(rng.integers(8))
        files = [bytes(bad), datas[3]]
        one = outcome(lambda files=files: here.decompress_many(files))
        other = outcome(lambda files=files: there.decompress_many(files))
        assert one[1] == other[1]
        assert isinstance(one[0], str) == isinstance(other[0], str)
        for samples, found in zip(one[0], other[0], strict=True):
            assert np.array_equal(samples, found)


def main() -> None:
    """Check every kind of model."""
    warnings.simplefilter("error")
    with tempfile.TemporaryDirectory() as folder:
        for kind in sys.argv[1:]:
            check(kind, Path(folder))
            print(f"{kind}: equal")


if __name__ == "__main__":
    main()
