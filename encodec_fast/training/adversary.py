"""The discriminators of a run: which one judges, when it learns, what it tells the decoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from encodec_fast.models.collective import world
from encodec_fast.models.config import ModelConfig
from encodec_fast.training.codec_settings import AdversarySettings, LossSettings
from encodec_fast.training.discriminator import DISCRIMINATOR_PRESETS, MultiScaleSTFTDiscriminator
from encodec_fast.training.losses import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
)

SHARED = "all"


class Adversary:
    """MS-STFT discriminators with their optimiser (paper 3.4, spec 6.3, 6.4, 6.8).

    There is one for each number of codebooks that a bandwidth uses, or one for all. Only the one
    of the batch's bandwidth is evaluated and updated.
    """

    def __init__(
        self,
        settings: AdversarySettings,
        losses: LossSettings,
        config: ModelConfig,
        betas: tuple[float, float],
        device: torch.device,
    ) -> None:
        self._settings = settings
        self._losses = losses
        names = [SHARED]
        if settings.per_bandwidth:
            names = [str(config.n_q(bandwidth)) for bandwidth in config.bandwidths]
        preset = DISCRIMINATOR_PRESETS[settings.preset](config.sample_rate)
        self.networks = nn.ModuleDict(
            {name: MultiScaleSTFTDiscriminator(preset, config.channels) for name in names}
        ).to(device)
        self._parallel: dict[str, nn.Module] = dict(self.networks.items())
        if world() > 1:
            ids = [device.index] if device.type == "cuda" else None
            self._parallel = {
                name: DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)
                for name, network in self.networks.items()
            }
        self.optimizer = torch.optim.Adam(self.networks.parameters(), lr=settings.lr, betas=betas)

    def _name(self, n_q: int) -> str:
        """The discriminator of `n_q` codebooks: the next larger bandwidth's."""
        if SHARED in self.networks:
            return SHARED
        return min((name for name in self.networks if int(name) >= n_q), key=int)

    def learn(self, n_q: int, x: Tensor, y: Tensor) -> Tensor:
        """One update with recordings x and decoded y, both [B, C, T]; its loss, a scalar."""
        network = self._parallel[self._name(n_q)]
        self.optimizer.zero_grad(set_to_none=True)
        # Both in one call: DistributedDataParallel allows no second forward before the backward.
        logits, _ = network(torch.cat([x, y.detach()]))
        loss = hinge_discriminator(
            [part[: len(x)] for part in logits], [part[len(x) :] for part in logits]
        )
        torch.autograd.backward(loss)
        self.optimizer.step()
        return loss.detach()

    def judge(self, n_q: int, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The decoder's losses "adversarial" and "features", scalars with gradients to y alone."""
        network = self.networks[self._name(n_q)]
        with _frozen(network):
            with torch.no_grad():
                _, real = network(x)
            logits, fake = network(y)
        return {
            "adversarial": hinge_generator(logits, self._losses.generator),
            "features": feature_matching(real, fake, self._losses.relative_features),
        }

    def state_dict(self) -> dict[str, object]:
        """Networks and optimiser."""
        return {"networks": self.networks.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take up what `state_dict` returned."""
        self.networks.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Spares the backward pass the gradients of weights that are not to learn."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
