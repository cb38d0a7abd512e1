"""Balances losses by the gradients that they have with respect to the decoded waveform."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from encodec_fast.models.collective import sum_ranks

EPSILON = 1e-12


class Balancer:
    """Scales each loss's gradient to its share of a total norm (paper 3.4, spec 6.7).

    A loss's size is the moving average, bias corrected, of its gradient's norm; its share is its
    weight over the sum of the weights of the losses present in the step. So the weights say how
    much each loss steers, whatever its units.

    weights: above 0, by loss. decay: of the moving average, 0 to 1 (exclusive). total_norm: of the
    combined gradient. per_batch_item: a gradient's norm is the mean of its items' norms, otherwise
    that of the whole tensor.

    In a distributed run the norms are averaged over the ranks by batch size before they enter the
    moving average, so that its state is the same on all ranks. Published is the average of the
    ranks' moving averages, which is the same number while the batch sizes do not change.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        decay: float = 0.999,
        total_norm: float = 1.0,
        per_batch_item: bool = True,
    ) -> None:
        if not weights:
            raise ValueError("weights: expected at least one loss")
        for name, weight in weights.items():
            if not 0 < weight < math.inf:
                raise ValueError(f"weights: expected {name} above 0 and finite, found {weight!r}")
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected from 0 to below 1, found {decay!r}")
        if not 0 < total_norm < math.inf:
            raise ValueError(f"total_norm: expected above 0 and finite, found {total_norm!r}")
        self.weights = dict(weights)
        self.decay = decay
        self.total_norm = total_norm
        self.per_batch_item = per_batch_item
        self._totals = dict.fromkeys(self.weights, 0.0)
        self._counts = dict.fromkeys(self.weights, 0.0)
        self._last: dict[str, float] = {}

    def gradient(self, losses: Mapping[str, Tensor], y: Tensor) -> Tensor:
        """The combined gradient, shaped as y [B, ...], for y.backward.

        losses: differentiable scalars by name, any of those with a weight; their graphs are kept.
        All ranks must give the same names. Raises ValueError for an unknown name or none at all.
        """
        unknown = [name for name in losses if name not in self.weights]
        if unknown or not losses:
            found = ", ".join(unknown) or "none"
            raise ValueError(f"losses: expected some of {', '.join(self.weights)}, found {found}")
        names = [name for name in self.weights if name in losses]
        gradients = [torch.autograd.grad(losses[name], y, retain_graph=True)[0] for name in names]
        norms = self._norms(gradients)
        whole = sum(self.weights[name] for name in names)
        combined = torch.zeros_like(y)
        applied = {}
        for name, gradient, norm in zip(names, gradients, norms, strict=True):
            self._totals[name] = self.decay * self._totals[name] + norm
            self._counts[name] = self.decay * self._counts[name] + 1
            size = self._totals[name] / self._counts[name]
            scale = self.total_norm * self.weights[name] / whole / (EPSILON + size)
            combined.add_(gradient, alpha=scale)
            applied[name] = scale * norm
        total = sum(applied.values())
        self._last = {name: norm / total if total else 0.0 for name, norm in applied.items()}
        return combined

    def _norms(self, gradients: list[Tensor]) -> list[float]:
        """The norm of each gradient [B, ...], averaged over the ranks' batches."""
        items = gradients[0].shape[0]
        dim = 1 if self.per_batch_item else (0, 1)
        found = [torch.linalg.vector_norm(each.flatten(1), dim=dim).mean() for each in gradients]
        weighted = torch.stack([*found, torch.ones_like(found[0])]).double() * items
        *sums, count = sum_ranks(weighted).tolist()
        return [each / count for each in sums]

    def shares(self) -> dict[str, float]:
        """Each loss's share in the last combined gradient: its scaled gradient's norm over the sum
        of those. Empty before the first; they sum to 1, or are all 0 for gradients of 0."""
        return dict(self._last)

    def state_dict(self) -> dict[str, Any]:
        """The moving averages, as numbers by loss: "totals" and "counts"."""
        return {"totals": dict(self._totals), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned. Raises ValueError for that of other losses."""
        for key in ("totals", "counts"):
            found = set(state.get(key, ()))
            if found != set(self.weights):
                raise ValueError(
                    f"state: expected {key} of {', '.join(sorted(self.weights))},"
                    f" found {', '.join(sorted(found)) or 'none'}"
                )
        self._totals, self._counts = dict(state["totals"]), dict(state["counts"])
