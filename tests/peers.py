"""Reference implementations to compare with, carrying random but realistic weights.

Two peers share one set of weights: `transformers.EncodecModel` and the PyPI package `encodec`. No
released checkpoint is needed. Freshly initialised peers would prove little (transformers sets every
codebook to zeros, and their latents hardly vary), so `build_peer` conditions them on audio: every
convolution is centred and scaled to unit deviation, and each codebook is fitted to the residuals
that reach it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import re
import sys
import types
import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from signals import FloatArray, program_material
from torch import Tensor, nn

FIT_SECONDS = {"encodec_24khz": 40.0, "encodec_48khz": 20.0}
CHECK_SECONDS = {"encodec_24khz": 16.0, "encodec_48khz": 8.0}
MIN_DISTINCT_CODES = 200


@dataclass(frozen=True)
class Peer:
    """One set of weights in transformers' model and, where it is installed, in `encodec`'s."""

    name: str
    hf: Any
    fb: Any | None

    @property
    def sample_rate(self) -> int:
        """Samples per second and channel."""
        return int(self.hf.config.sampling_rate)

    @property
    def channels(self) -> int:
        """Audio channels."""
        return int(self.hf.config.audio_channels)

    def encode(self, wav: FloatArray, bandwidth: float) -> list[tuple[Tensor, Tensor | None]]:
        """Encode [C, T] with transformers: (codes [K, F], scale [1] or None) per segment."""
        # No processor and no padding: padding the last chunk would change its scale and codes.
        with torch.inference_mode():
            out = self.hf.encode(torch.from_numpy(wav)[None], bandwidth=bandwidth)
        segments = [
            (codes[0], scale)
            for codes, scale in zip(out.audio_codes, out.audio_scales, strict=True)
        ]
        if out.last_frame_pad_length:
            codes, scale = segments[-1]
            segments[-1] = (codes[:, : -out.last_frame_pad_length], scale)
        return [(codes, None if scale is None else scale[0]) for codes, scale in segments]

    def decode(self, segments: list[tuple[Tensor, Tensor | None]]) -> Tensor:
        """Decode segments as `encode` returns them with transformers, into [C, T]."""
        frames = segments[0][0].shape[1]
        missing = frames - segments[-1][0].shape[1]
        padded = [nn.functional.pad(codes, (0, frames - codes.shape[1])) for codes, _ in segments]
        scales = [None if scale is None else scale[None] for _, scale in segments]
        with torch.inference_mode():
            out = self.hf.decode(
                torch.stack(padded)[:, None], scales, last_frame_pad_length=missing
            )
        return out.audio_values[0]

    def latents(self, segment: FloatArray) -> Tensor:
        """Return the latents float32 [D, F] of one segment [C, T], normalised as the model does."""
        wav = torch.from_numpy(segment)[None]
        with torch.inference_mode():
            return self.hf.encoder(_normalised(wav) if self.hf.config.normalize else wav)[0]

    def codebooks(self) -> Tensor:
        """Return all code vectors [n_q, N, D]."""
        return torch.stack([layer.codebook.embed for layer in self.hf.quantizer.layers])


def import_encodec() -> Any:
    """Import the PyPI package `encodec`, torchaudio replaced by empty modules; skip without it."""
    if importlib.util.find_spec("encodec") is None:
        pytest.skip("no reference package: pip install --no-deps encodec; pip install einops")
    if importlib.util.find_spec("torchaudio") is None:
        # The codec never calls torchaudio. Without a __spec__, transformers' look-ups would raise.
        for name in ("torchaudio", "torchaudio.transforms"):
            module = types.ModuleType(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
            sys.modules.setdefault(name, module)
    package = importlib.import_module("encodec")
    importlib.import_module("encodec.compress")
    return package


def hf_config(name: str) -> Any:
    """Return the transformers configuration of `encodec_24khz` or `encodec_48khz`."""
    from transformers import EncodecConfig

    if name == "encodec_24khz":
        return EncodecConfig()
    return EncodecConfig(
        target_bandwidths=[3.0, 6.0, 12.0, 24.0],
        sampling_rate=48000,
        audio_channels=2,
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        norm_type="time_group_norm",
        use_causal_conv=False,
    )


def build_peer(name: str, seed: int = 0) -> Peer:
    """Build conditioned peers of `encodec_24khz` or `encodec_48khz`, alike for equal seeds."""
    from transformers import EncodecModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = EncodecModel(hf_config(name)).eval()
        rate, channels = hf.config.sampling_rate, hf.config.audio_channels
        wav = program_material("train", rate, channels, FIT_SECONDS[name])
        condition(hf, torch.from_numpy(wav), rate, hf.config.normalize)
    peer = Peer(name, hf, _build_fb(name, hf))
    _check_diversity(peer)
    return peer


def fb_state_dict(hf_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a transformers state dict to the key names of Meta's checkpoints."""
    return {_fb_key(key): value.clone() for key, value in hf_state.items()}


def _fb_key(key: str) -> str:
    match = re.fullmatch(r"quantizer\.layers\.(\d+)\.codebook\.(\w+)", key)
    if match:
        return f"quantizer.vq.layers.{match[1]}._codebook.{match[2]}"
    key = key.replace("encoder.layers.", "encoder.model.").replace(
        "decoder.layers.", "decoder.model."
    )
    transposed = re.match(r"decoder\.model\.(3|6|9|12)\.(conv|norm)\.", key)
    kind = "convtr" if transposed else "conv"
    key = re.sub(r"\.norm\.", f".{kind}.norm.", key)
    if ".lstm." not in key:
        key = re.sub(r"\.conv\.(?!norm)", f".{kind}.{kind}.", key)
    key = key.replace("parametrizations.weight.original0", "weight_g")
    return key.replace("parametrizations.weight.original1", "weight_v")


def _build_fb(name: str, hf: Any) -> Any | None:
    if importlib.util.find_spec("encodec") is None:
        return None
    build = getattr(import_encodec().EncodecModel, name.replace("encodec_", "encodec_model_"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its weight norm is PyTorch's old one
        fb = build(pretrained=False)
    fb.load_state_dict(fb_state_dict(hf.state_dict()), strict=True)
    fb.name = name
    return fb.eval()


def _normalised(wav: Tensor) -> Tensor:
    mono = wav.sum(1, keepdim=True) / wav.shape[1]
    return wav / (mono.pow(2).mean(dim=-1, keepdim=True).sqrt() + 1e-8)


@torch.no_grad()
def condition(model: Any, wav: Tensor, segment: int, normalize: bool) -> None:
    """Give every layer varied activations and every codebook varied codes on `wav` [C, T].

    `model` is transformers' or ours: the same tree of modules. It sees pieces of `segment` samples.
    """
    batch = wav.unfold(1, segment, segment).transpose(0, 1)
    if normalize:
        batch = _normalised(batch)
    # A fifth of the audio is enough to scale the layers; the codebooks need many more vectors.
    latents = _run_scaled(model.encoder, batch[::5])
    _scale_last(model.encoder.layers[-1], latents, deviation=1.0)
    vectors = model.encoder(batch).transpose(1, 2).reshape(-1, latents.shape[1])
    residual = vectors
    for layer in model.quantizer.layers:
        residual = _fit_codebook(layer.codebook, residual)
    quantised = (vectors - residual).view(len(batch), -1, latents.shape[1]).transpose(1, 2)
    out = _run_scaled(model.decoder, quantised[::5])
    _scale_last(model.decoder.layers[-1], out, deviation=0.2)


def _run_scaled(network: nn.Module, batch: Tensor) -> Tensor:
    """Run `network`, scaling each weight-normed convolution to centred, unit-deviation outputs."""

    def rescale(module: nn.Module, _: Any, out: Tensor) -> Tensor:
        mean = out.mean(dim=(0, 2))
        gain = 1.0 / (out - mean[:, None]).std()
        # g is per output channel, in transposed convolutions per input channel: one gain for all.
        module.parametrizations.weight.original0.mul_(gain)
        module.bias.copy_((module.bias - mean) * gain)
        return (out - mean[:, None]) * gain

    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    hooks = [
        m.register_forward_hook(rescale) for m in convolutions if hasattr(m, "parametrizations")
    ]
    try:
        return network(batch)
    finally:
        for hook in hooks:
            hook.remove()


def _scale_last(layer: Any, out: Tensor, deviation: float) -> None:
    """Centre the layer whose output [B, C, F] is given and set each channel's deviation."""
    mean = out.mean(dim=(0, 2))
    gain = deviation / (out - mean[:, None]).std(dim=(0, 2))
    if isinstance(getattr(layer, "norm", None), nn.GroupNorm):
        layer.norm.weight.mul_(gain)
        layer.norm.bias.copy_((layer.norm.bias - mean) * gain)
    else:
        layer.conv.parametrizations.weight.original0.mul_(gain[:, None, None])
        layer.conv.bias.copy_((layer.conv.bias - mean) * gain)


def _fit_codebook(codebook: Any, residual: Tensor) -> Tensor:
    """Fit one codebook to residuals [M, D] and return the residuals for the next one.

    Entries are the directions of randomly drawn residuals at one common length, the best one for
    the residuals they were not drawn from. Cluster means would serve unseen audio worse: there are
    too few vectors for them, their lengths differ, and the short ones attract every new vector. For
    the same reason no vector may choose the entry drawn from it.
    """
    drawn = torch.randperm(len(residual))[: len(codebook.embed)]
    directions = nn.functional.normalize(residual[drawn], dim=1)
    # Residuals of pauses are all alike; without a shift, entries drawn from them would tie.
    directions = nn.functional.normalize(directions + 0.02 * torch.randn_like(directions), dim=1)
    scores = residual @ directions.T
    scores[drawn, torch.arange(len(drawn))] = -torch.inf
    best, chosen = scores.max(dim=1)
    codebook.embed.copy_(directions * best.mean())
    codebook.embed_avg.copy_(codebook.embed)
    codebook.cluster_size.fill_(1.0)
    return residual - codebook.embed[chosen]


def _check_diversity(peer: Peer) -> None:
    """Refuse to test with a peer whose codes hardly vary on audio that it was not fitted to."""
    wav = program_material("test", peer.sample_rate, peer.channels, CHECK_SECONDS[peer.name])
    codes = torch.cat([c for c, _ in peer.encode(wav, 24.0)], dim=1)
    distinct = [len(row.unique()) for row in codes[:8]]
    if min(distinct) < MIN_DISTINCT_CODES:
        raise AssertionError(f"{peer.name}: distinct codes in the first codebooks {distinct}")
