"""Balances losses by the gradients that they have with respect to the decoded waveform."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Balancer:
    """Scales each loss's gradient to its share of a total norm of 1 (paper 3.4).

    A loss's size is the moving average, bias corrected, of its gradient's norm per batch item; its
    share is its weight over the sum of weights. So the weights say how much each loss steers,
    whatever its units.
    """

    def __init__(self, weights: Mapping[str, float], decay: float = 0.999) -> None:
        self.weights = dict(weights)
        self.decay = decay
        self.totals = dict.fromkeys(self.weights, 0.0)
        self.count = 0.0

    def gradient(self, losses: Mapping[str, Tensor], y: Tensor) -> Tensor:
        """The combined gradient, shaped as y [B, C, T], for the scalar losses by name."""
        self.count = self.decay * self.count + 1
        combined = torch.zeros_like(y)
        for name, weight in self.weights.items():
            (gradient,) = torch.autograd.grad(losses[name], y, retain_graph=True)
            norm = gradient.flatten(1).norm(dim=1).mean().item()
            self.totals[name] = self.decay * self.totals[name] + norm
            share = weight / sum(self.weights.values())
            combined += gradient * (share / (1e-12 + self.totals[name] / self.count))
        return combined
