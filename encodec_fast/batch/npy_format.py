"""Tokens as .npy files: one file an item, whose first array numpy loads as its codes.

numpy documents several arrays in one file, one np.save after the other. Here: the codes, the
description (JSON as uint8), and the extras (uint8) in the order in which the description has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np

from encodec_fast.batch import item_json
from encodec_fast.batch.arrays import bytes_left, read_array, write_array
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec


def write(items: Iterable[Tokens], stream: IO[bytes], codec: Codec) -> None:
    (tokens,) = items
    description = item_json.dump(item_json.describe(tokens))
    write_array(stream, tokens.codes)
    for data in [description, *(tokens.extra[name] for name in sorted(tokens.extra))]:
        write_array(stream, np.frombuffer(data, np.uint8))


def read(stream: IO[bytes], codec: Codec | None) -> Iterator[Tokens]:
    codes = read_array(stream, np.uint16, bytes_left(stream))
    if not bytes_left(stream):
        raise ValueError("expected codes with a description behind them, found one array alone")
    about = item_json.parse(_bytes(stream))
    extra = {name: _bytes(stream) for name in item_json.extra_names(about)}
    if surplus := bytes_left(stream):
        raise ValueError(f"expected the end of the file, found {surplus} more bytes")
    yield item_json.restore(about, codes, extra)


def _bytes(stream: IO[bytes]) -> bytes:
    return read_array(stream, np.uint8, bytes_left(stream)).tobytes()
