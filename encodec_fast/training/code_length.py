"""What codes cost with a language model, as files have them: restarted at every key chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encodec_fast.models.lm import LanguageModel
from encodec_fast.training.static_tables import code_widths, width_bits

KEY_SECONDS = 10.0
_BATCH_FRAMES = 4096  # at once, for the memory that their probabilities take


def shifted(codes: Tensor) -> Tensor:
    """The model's input for codes int64 [B, K, T]: code + 1 of the frame before, 0 at the start."""
    previous = torch.zeros_like(codes)
    previous[:, :, 1:] = codes[:, :, :-1] + 1
    return previous


def as_shipped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as the model's file has them: matrices and embeddings rounded to bfloat16."""
    return {
        key: value.bfloat16().float() if value.ndim > 1 else value.clone()
        for key, value in state.items()
    }


@torch.no_grad()
def model_bits(
    model: LanguageModel, codes: Sequence[NDArray[np.uint16]], n_q: int
) -> NDArray[np.float64]:
    """Bits float64 [n_q] of the first `n_q` codebooks of recordings [K, frames], in total.

    The model starts anew every KEY_SECONDS, as at key chunks. A code costs log2(2^24 / width) with
    the width that the version 1 coder gives it; framing and the coder's last bytes are not in it.
    """
    total = np.zeros(n_q)
    for batch in _key_chunks(codes, n_q, round(KEY_SECONDS * model.config.frame_rate)):
        probabilities, _, _ = model(shifted(batch))
        chosen = probabilities.gather(1, batch[:, None])[:, 0].numpy()
        widths = code_widths(chosen, model.config.codebook_size)
        total += width_bits(widths).sum(axis=(0, 2))
    return total


def bits_per_code(model: LanguageModel, codes: Sequence[NDArray[np.uint16]]) -> dict[str, float]:
    """Bits per code of recordings [K, frames] at each bandwidth in kbps."""
    frames = sum(part.shape[1] for part in codes)
    figures = {}
    for bandwidth in model.config.bandwidths:
        n_q = model.config.n_q(bandwidth)
        bits = model_bits(model, codes, n_q).sum() / (n_q * frames)
        figures[f"{bandwidth:g}"] = float(bits)
    return figures


def _key_chunks(codes: Sequence[NDArray[np.uint16]], n_q: int, frames: int) -> Iterator[Tensor]:
    """All key chunks, int64 [B, n_q, T], those of one length together."""
    chunks: dict[int, list[NDArray[np.int64]]] = {}
    for recording in codes:
        for start in range(0, recording.shape[1], frames):
            chunk = recording[:n_q, start : start + frames].astype(np.int64)
            chunks.setdefault(chunk.shape[1], []).append(chunk)
    for length, found in chunks.items():
        size = max(1, _BATCH_FRAMES // length)
        for first in range(0, len(found), size):
            yield torch.from_numpy(np.stack(found[first : first + size]))
