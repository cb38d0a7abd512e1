"""What a training step runs of the codec, as one module, and the weights that a run starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from encodec_fast.models.checkpoints import load_checkpoint
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.program_weights import load_program, set_weight
from encodec_fast.program import read_header
from encodec_fast.store import SUFFIX, find_program
from encodec_fast.training.distillation import Distillation, first_latents


class Decoded(NamedTuple):
    """What the training forward returns.

    waves: float32 [B, C, T]; commitment: float32 scalar; codes: int64 [n_q, B, F], empty without
    quantiser; distillation: float32 scalar, 0 without a teacher.
    """

    waves: Tensor
    commitment: Tensor
    codes: Tensor
    distillation: Tensor


class Generator(nn.Module):
    """Encoder, quantiser and decoder in one forward, as DistributedDataParallel needs them."""

    def __init__(
        self, model: EncodecModel, distillation: Distillation | None, reference_gradients: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.distillation = distillation
        self._reference_gradients = reference_gradients

    def forward(self, x: Tensor, n_q: int | None, kinds: Sequence[str]) -> Decoded:
        """Code x [B, C, T] with `n_q` codebooks (None: no quantiser) and decode it; `kinds` are
        those of the B recordings.

        With `normalize` each item is divided by the level of its downmix and multiplied by it again
        (paper 3.1). Convolutions may run in bfloat16 under autocast, results are float32.
        """
        scale = torch.ones((), device=x.device)
        if self.model.config.normalize:
            scale = x.mean(dim=1, keepdim=True).pow(2).mean(dim=2, keepdim=True).sqrt() + 1e-8
        z = self.model.encoder(x / scale).float()
        zero = torch.zeros((), device=x.device)
        if n_q is None:
            return Decoded(self._decode(z, x, scale), zero, zero.new_zeros(0).long(), zero)
        quantizer = self.model.quantizer
        latents, codes, commitment = quantizer(z, n_q, self._reference_gradients)
        distilled = zero
        if self.distillation is not None:
            count = self.distillation.settings.codebooks
            distilled = self.distillation(first_latents(z, codes, quantizer, count), x, kinds)
        return Decoded(self._decode(latents, x, scale), commitment, codes, distilled)

    def _decode(self, latents: Tensor, x: Tensor, scale: Tensor) -> Tensor:
        waves: Tensor = self.model.decoder(latents).float()[..., : x.shape[-1]] * scale
        return waves


@torch.no_grad()
def start_from(model: EncodecModel, source: str) -> int:
    """Give `model` the weights of a bundled or imported model, a program file or a checkpoint.

    A model with another number of channels is taken over, too: its first convolution's weights are
    shared among the channels, its last one's repeated, with a little noise that lets the channels
    part. Returns the sample rate in Hz that the weights were trained at. Raises ValueError for a
    model of other layers, and what reading it raises.
    """
    path = Path(source)
    if path.suffix == SUFFIX or not path.exists():
        program = find_program(source)
        header = read_header(program)
        rate = header.sample_rate
        loaded = load_program(program, replace(model.config, channels=header.channels))
    else:
        loaded = load_checkpoint(source)
        rate = loaded.config.sample_rate
    if loaded.config.channels != model.config.channels:
        _adapt_channels(loaded, model)
    state = loaded.state_dict()
    differing = [
        key
        for key, value in model.state_dict().items()
        if key not in state or state[key].shape != value.shape
    ]
    if differing or len(state) != len(model.state_dict()):
        raise ValueError(f"start_from: {source} has other layers, first {differing[:1]}")
    model.load_state_dict(state)
    return rate


def _adapt_channels(loaded: EncodecModel, model: EncodecModel) -> None:
    """Give the loaded model a first and a last convolution for the other one's channels."""
    for theirs, ours, axis in (
        (loaded.encoder.layers, model.encoder.layers, 1),
        (loaded.decoder.layers, model.decoder.layers, 0),
    ):
        index = 0 if axis == 1 else len(ours) - 1
        source, target = theirs[index].conv, ours[index].conv
        assert isinstance(source, nn.Conv1d) and isinstance(target, nn.Conv1d)
        assert source.bias is not None and target.bias is not None
        weight, bias = source.weight, source.bias
        mean = weight.mean(dim=axis, keepdim=True)
        if axis == 1:  # so that equal channels give what one did
            mean = mean * (weight.shape[1] / target.weight.shape[1])
        set_weight(target, mean + 0.1 * weight.std() * torch.randn(target.weight.shape))
        target.bias.copy_(bias if axis == 1 else bias.mean())
        theirs[index] = ours[index]
