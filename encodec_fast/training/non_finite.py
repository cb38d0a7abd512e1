"""Losses that are no longer numbers: the run stops and keeps the batch that did it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from encodec_fast.training.checkpoint import CheckpointStore

_SHOWN_SOURCES = 8


class NonFiniteLoss(ValueError):
    """A loss, or the gradient, is NaN or infinite.

    `step` it happened at, `loss` the name of the first bad one, `sources` of the batch, one string
    per recording.
    """

    def __init__(self, step: int, loss: str, sources: Sequence[str], reason: str) -> None:
        shown = "; ".join(sources[:_SHOWN_SOURCES])
        if len(sources) > _SHOWN_SOURCES:
            shown += f"; and {len(sources) - _SHOWN_SOURCES} more"
        super().__init__(f"step {step}: {loss} is {reason}; its sources: {shown}")
        self.step = step
        self.loss = loss
        self.sources = list(sources)


def first_bad(values: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a value that is NaN or infinite, or None.

    values: losses and gradient norms by name, of any shapes, on one device, which is asked once.
    """
    if not values:
        return None
    finite = torch.stack([torch.isfinite(value.detach()).all() for value in values.values()])
    return next(
        (name for name, good in zip(values, finite.tolist(), strict=True) if not good), None
    )


def check_finite(
    step: int,
    values: Mapping[str, Tensor],
    waves: Tensor,
    sources: Sequence[str],
    store: CheckpointStore,
    name: str = "bad_batch.pt",
) -> None:
    """Raises NonFiniteLoss if one of `values` (as in `first_bad`) is not finite.

    Keeps the batch in the file `name` before that: a checkpoint with step, values, waves float32
    [B, C, T] and sources. Where that is impossible (a full disk) the error says so too. Processes
    that train together need names of their own.
    """
    loss = first_bad(values)
    if loss is None:
        return
    kept = {key: value.detach().cpu() for key, value in values.items()}
    state = {"step": step, "values": kept, "waves": waves.detach().cpu(), "sources": list(sources)}
    try:
        kept_in = f"the batch is in {store.save(name, state)}"
    except OSError as error:
        kept_in = f"the batch is not kept ({error})"
    origin = "" if torch.isfinite(waves).all() else " from samples that are not finite either"
    reason = f"{_first_value(values[loss])}{origin}; {kept_in}"
    raise NonFiniteLoss(step, loss, sources, reason)


def _first_value(value: Tensor) -> float:
    """The first one that is not finite."""
    return value.detach()[~torch.isfinite(value)][0].item()
