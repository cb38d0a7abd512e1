"""Resampling on the device where the samples are; files are resampled by soxr (audio.py)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

_ZEROS = 64  # of the sinc on each side: the transition takes 8 % of the lower rate's band
_ROLL_OFF = 0.96  # the transition ends at the lower rate's half
_BETA = 8.0  # of the Kaiser window: 80 dB


def resample(x: Tensor, rate: int, target: int) -> Tensor:
    """Samples float32 [B, T] at `rate` Hz as [B, ceil(T * target / rate)] at `target` Hz.

    A windowed sinc with linear phase, evaluated at the times of the new samples; beyond its ends
    the recording is taken for silence. Deterministic, and differentiable.
    """
    if rate == target:
        return x
    common = math.gcd(rate, target)
    up, down = target // common, rate // common
    kernels, reach = _kernels(up, down)
    length = -(-x.shape[-1] * up // down)
    turns = -(-length // up)
    x = F.pad(x, (reach, turns * down + reach + 1 - x.shape[-1]))
    phases = F.conv1d(x[:, None], kernels.to(x), stride=down)
    return phases.transpose(1, 2).flatten(1)[:, :length]


@lru_cache(maxsize=8)
def _kernels(up: int, down: int) -> tuple[Tensor, int]:
    """The filter of each of the `up` phases, [up, 1, taps], and the samples before its centre."""
    cutoff = _ROLL_OFF * min(1.0, up / down)
    reach = math.ceil(_ZEROS / cutoff)
    phases = torch.arange(up, dtype=torch.float64)[:, None] * down / up
    times = torch.arange(-reach, reach + down + 1, dtype=torch.float64) - phases
    inside = (1 - (times / reach) ** 2).clamp(min=0)
    window = torch.special.i0(_BETA * inside.sqrt()) / torch.special.i0(
        torch.tensor(_BETA, dtype=torch.float64)
    )
    window[times.abs() > reach] = 0
    return (cutoff * torch.sinc(cutoff * times) * window)[:, None], reach
