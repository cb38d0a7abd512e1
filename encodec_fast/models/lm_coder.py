"""Segments of `.ecdc` files, version 0, coded with a language model in PyTorch.

Such files depend on the last bits of PyTorch's floats: they can be read where the same operations
give the same bits, which is usually the machine, and the version of PyTorch, that wrote them. With
ours and the reference's operations the same (models/lm.py), either reads the other's files there.
The model runs one step at a time, on as many threads as PyTorch is set to.
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from encodec_fast._native import CodeArray
from encodec_fast.entropy import ArithmeticDecoder, ArithmeticEncoder
from encodec_fast.models.checkpoints import load_language_model
from encodec_fast.models.config import CONFIGS
from encodec_fast.models.lm import LanguageModel
from encodec_fast.program import Header


def load_lm_coder(source: str | os.PathLike[str], header: Header) -> LmCoder:
    """The coder with a language model of Meta's, a file or a name, for the model of a program.

    Raises ValueError for a model that has none or another checkpoint, OSError for an unreadable
    file.
    """
    config = CONFIGS.get(header.name)
    expected = (header.n_codebooks, header.codebook_size, header.hop, header.sample_rate)
    if config is None or expected != (
        config.n_codebooks,
        config.codebook_size,
        config.hop,
        config.sample_rate,
    ):
        raise ValueError(f"lm_checkpoint: no language model suits {header.name!r} as it is here")
    return LmCoder(load_language_model(os.fspath(source), config))


class LmCoder:
    """What the container needs of a language model (segment_codes.SegmentCoder)."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm.eval()

    def encoder(self, n_q: int) -> LmEncoder:
        """A segment with n_q codebooks to bytes."""
        return LmEncoder(self._lm, n_q)

    def decoder(self, n_q: int, data: bytes) -> LmDecoder:
        """The bytes of a segment with n_q codebooks, and what follows, to codes."""
        return LmDecoder(self._lm, n_q, data)


class _Steps:
    """The language model, frame by frame: the segment begins anew (spec 3.2 and 3.3)."""

    def __init__(self, lm: LanguageModel, n_q: int) -> None:
        self._lm = lm
        self._input = torch.zeros(1, n_q, 1, dtype=torch.int64)
        self._states: list[Tensor] | None = None
        self._offset = 0

    def probabilities(self) -> npt.NDArray[np.float32]:
        """Of the codes of the next frame: float32 [n_q, entries]."""
        with torch.no_grad():
            p, self._states, self._offset = self._lm(self._input, self._states, self._offset)
        rows: npt.NDArray[np.float32] = p[0, :, :, 0].T.contiguous().numpy()
        return rows

    def advance(self, codes: CodeArray) -> None:
        """Past the frame, whose codes uint16 [n_q] are known."""
        self._input = torch.from_numpy(codes.astype(np.int64) + 1)[None, :, None]


class LmEncoder:
    """One segment's codes to bytes."""

    def __init__(self, lm: LanguageModel, n_q: int) -> None:
        self._steps = _Steps(lm, n_q)
        self._coder = ArithmeticEncoder()

    def push(self, codes: CodeArray) -> bytes:
        """Nothing: the coder gives its bytes at the segment's end. codes: uint16 [n_q, frames].

        Raises ValueError for a code that the reference's coder has no room for (spec 4.1).
        """
        for frame in codes.T:
            self._coder.push(frame, self._steps.probabilities())
            self._steps.advance(frame)
        return b""

    def flush(self) -> bytes:
        """The segment's bytes."""
        return self._coder.flush()


class LmDecoder:
    """The bytes of one segment, and what follows, to codes."""

    def __init__(self, lm: LanguageModel, n_q: int, data: bytes) -> None:
        self._n_q = n_q
        self._steps = _Steps(lm, n_q)
        self._coder = ArithmeticDecoder(data)

    @property
    def position(self) -> int:
        """Bytes read so far: at the segment's end, its length."""
        return self._coder.position

    def pull(self, frames: int) -> CodeArray:
        """The next codes, uint16 [n_q, frames]. Raises ValueError for damaged data and EOFError for
        truncated data."""
        codes: list[CodeArray] = []
        for _ in range(frames):
            codes.append(self._coder.pull(self._steps.probabilities()))
            self._steps.advance(codes[-1])
        if not codes:
            return np.zeros((self._n_q, 0), np.uint16)
        return np.stack(codes, axis=1)
