"""Objective measures of a decoded recording."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def si_snr(x: Tensor, y: Tensor, sample_rate: int, seconds: float = 5.0) -> float:
    """Scale-invariant signal-to-noise ratio in dB of y against x, both float32 [C, T].

    Framed as the published figures are: frames of `seconds` with half overlap, zeros after the
    end, each centred; the mean over channels and frames. Higher is better.
    """
    size = int(seconds * sample_rate)
    hop = size // 2
    count = math.ceil(max(0, x.shape[-1] - size) / hop) + 1
    total = (count - 1) * hop + size

    def frames(signal: Tensor) -> Tensor:
        cut = F.pad(signal, (0, total - signal.shape[-1])).unfold(-1, size, hop)
        return cut - cut.mean(dim=-1, keepdim=True)

    target, estimate = frames(x), frames(y)
    floor = torch.finfo(torch.float32).eps * size
    scale = (estimate * target).sum(-1, keepdim=True)
    projection = scale * target / (floor + target.pow(2).sum(-1, keepdim=True))
    noise = estimate - projection
    ratio = torch.log10(floor + projection.pow(2).sum(-1)) - torch.log10(
        floor + noise.pow(2).sum(-1)
    )
    return float(10 * ratio.mean())
