"""The moving average of a model's weights: what is validated, kept and exported."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn

AnyModel = TypeVar("AnyModel", bound=nn.Module)


class AveragedWeights:
    """Moving average of parameters and buffers, bias corrected (spec 7.1).

    The newest weights count w_n = (1 - decay) / (1 - decay^n) at update n, so the average starts as
    they are and does not remember the initial ones. `state` has the keys of the model's state dict.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.state: dict[str, Tensor] = _copy(model)

    @torch.no_grad()
    def update(self, model: nn.Module, count: int) -> None:
        """Take in the weights after update number `count`, from 1."""
        # With decay 1 this is the plain mean, the limit of the formula.
        share = 1 / count if self._decay == 1 else (1 - self._decay) / (1 - self._decay**count)
        for key, value in model.state_dict().items():
            self.state[key].lerp_(value, share)

    @torch.no_grad()
    def restart(self, prefix: str, model: nn.Module) -> None:
        """Forget the past of the entries whose keys begin with `prefix`."""
        for key, value in model.state_dict().items():
            if key.startswith(prefix):
                self.state[key].copy_(value)

    def model(self, model: AnyModel) -> AnyModel:
        """A copy of `model` with the averaged weights, in eval mode."""
        averaged = deepcopy(model)
        averaged.load_state_dict(self.state)
        return averaged.eval()


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}
