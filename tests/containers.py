"""Files in memory, written as the package writes them."""

from __future__ import annotations

import io
from collections.abc import Iterable

from encodec_fast import ecdc
from encodec_fast.segments import Piece


def version_0(layout: ecdc.Layout, length: int, n_q: int, pieces: Iterable[Piece]) -> bytes:
    """A version 0 file of a recording of `length` samples per channel."""
    payload = io.BytesIO()
    writer = ecdc.PieceWriter(payload, layout, n_q)
    for piece in pieces:
        writer.write(piece)
    return writer.finish(length).to_bytes() + payload.getvalue()
