"""What codes cost with a language model, as files have them: restarted at every key chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encodec_fast.chunk_codes import KEY_SECONDS
from encodec_fast.models.lm import LanguageModel
from encodec_fast.training.code_data import CodedRecording, segments_of
from encodec_fast.training.static_tables import code_widths, width_bits

_BATCH_FRAMES = 1024  # at once, for the memory that their probabilities take


class CodeLength(NamedTuple):
    """What recordings cost at one bandwidth: bits per code, bits per second of sound, and bits per
    second when the codes are packed."""

    per_code: float
    per_second: float
    packed_per_second: float

    @property
    def saved(self) -> float:
        """The share of the packed bits that is saved."""
        return 1 - self.per_second / self.packed_per_second


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
    """Bits float64 [n_q] of the first `n_q` codebooks of segments [K, frames], in total.

    The model starts anew in each and every KEY_SECONDS, as at key chunks. A code costs
    log2(2^24 / width) with the width that the version 1 coder gives it; framing and the coder's
    last bytes are not in it.
    """
    device, config = next(model.parameters()).device, model.config
    total = np.zeros(n_q)
    for batch in _key_chunks(codes, n_q, round(KEY_SECONDS * config.sample_rate / config.hop)):
        batch = batch.to(device)
        probabilities, _, _ = model(shifted(batch))
        chosen = probabilities.gather(1, batch[:, None])[:, 0].cpu().numpy()
        widths = code_widths(chosen, config.codebook_size)
        total += width_bits(widths).sum(axis=(0, 2))
    return total


def code_lengths(
    model: LanguageModel, recordings: Sequence[CodedRecording]
) -> dict[str, CodeLength]:
    """What recordings cost at each bandwidth, by kbps."""
    segments = list(segments_of(recordings))
    frames = sum(part.shape[1] for part in segments)
    seconds = sum(recording.seconds for recording in recordings)
    figures = {}
    for bandwidth in model.config.bandwidths:
        n_q = model.config.n_q(bandwidth)
        bits = float(model_bits(model, segments, n_q).sum())
        packed = n_q * frames * model.config.codebook_bits / seconds
        figures[f"{bandwidth:g}"] = CodeLength(bits / (n_q * frames), bits / seconds, packed)
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
