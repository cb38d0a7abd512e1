"""Writes the files of this folder anew: python tests/vectors/make.py

tiny_reflect codes a recording as a whole, tiny_segments in segments; both have an entropy model.
`KIND.MODE.ecdc` holds 1000 samples per channel at 6 kbps (2 codebooks) in chunks of 40 frames
(segments: 17) and key intervals of 2 chunks; `codes.json` has the codes [codebook][frame] of each
kind (segments one after the other), their scales, and each file's SHA-256. `reflect.damaged.ecdc`
is `reflect.lm.ecdc` with one flipped bit in its third chunk: frames 80 to 159 are lost.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from language_models import tiny_entropy  # noqa: E402
from programs import tiny_program  # noqa: E402

from encodec_fast import chunk_codes  # noqa: E402
from encodec_fast.codec import Codec  # noqa: E402

KINDS = ("reflect", "segments")
MODES = ("none", "static", "lm")
CHUNK_SECONDS = 0.03


def files() -> dict[str, bytes]:
    """All files of this folder by name, made from the models in it."""
    made: dict[str, bytes] = {}
    codes = {}
    rng = np.random.default_rng(7)
    walk = np.cumsum(rng.standard_normal((1, 1000)), axis=1)
    wav = (0.05 * walk).astype(np.float32)
    for kind in KINDS:
        codec = Codec.load(FOLDER / f"tiny_{kind}.safetensors")
        coded = codec.encode(wav, 6.0)
        for mode in MODES:
            buffer = io.BytesIO()
            with mock.patch.object(chunk_codes, "KEY_SECONDS", 2 * CHUNK_SECONDS):
                writer = codec.piece_writer(2, mode, chunk=CHUNK_SECONDS)(buffer)
            with codec.block_encoder(2) as encoder:
                for piece in [*encoder.push(wav), *encoder.flush()]:
                    writer.write(piece)
            writer.finish(wav.shape[1])
            made[f"{kind}.{mode}.ecdc"] = buffer.getvalue()
        codes[kind] = {
            "codes": np.concatenate(coded.codes, axis=1).tolist(),
            "scales": coded.scales,
        }
    damaged = bytearray(made["reflect.lm.ecdc"])
    damaged[damaged.index(b"\xc0\x02") + 20] ^= 0x10
    made["reflect.damaged.ecdc"] = bytes(damaged)
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in made.items()}
    made["codes.json"] = (json.dumps({**codes, "sha256": sums}) + "\n").encode()
    return made


def main() -> None:
    """Write the models, then the files."""
    for kind in KINDS:
        tiny_program(FOLDER, kind)
        tiny_entropy(FOLDER, kind)
    for name, data in files().items():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
