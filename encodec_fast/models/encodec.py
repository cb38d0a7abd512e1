"""The codec model: encoder, quantiser and decoder with segmentation and normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from encodec_fast.models.config import ModelConfig
from encodec_fast.models.rvq import ResidualVectorQuantizer
from encodec_fast.models.seanet import SEANetDecoder, SEANetEncoder

Frame = tuple[Tensor, Tensor | None]


def overlap_add(segments: Sequence[Tensor], stride: int) -> Tensor:
    """Join decoded segments [B, C, T_i] that start `stride` samples apart into [B, C, T].

    Each is weighted by a triangle over the first segment's length; the sum is divided by the sum
    of the weights (paper 3.1 and the released 48 kHz model).
    """
    length = segments[0].shape[-1]
    total = stride * (len(segments) - 1) + segments[-1].shape[-1]
    ramp = torch.linspace(0, 1, length + 2, dtype=segments[0].dtype, device=segments[0].device)[
        1:-1
    ]
    weight = 0.5 - (ramp - 0.5).abs()
    out = segments[0].new_zeros(*segments[0].shape[:-1], total)
    weights = segments[0].new_zeros(total)
    for index, segment in enumerate(segments):
        start, count = index * stride, segment.shape[-1]
        out[..., start : start + count] += weight[:count] * segment
        weights[start : start + count] += weight[:count]
    return out / weights


class EncodecModel(nn.Module):
    """EnCodec (arXiv 2210.13438) as `config` describes it. Use it in eval mode for coding."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = SEANetEncoder(config)
        self.decoder = SEANetDecoder(config)
        self.quantizer = ResidualVectorQuantizer(config)

    def encode(self, x: Tensor, bandwidth: float | None = None) -> list[Frame]:
        """Code a waveform float32 [B, C, T] at `bandwidth` kbps (None: all codebooks).

        Returns one (codes int64 [B, n_q, frames], scale float32 [B, 1] or None) per segment.
        Raises ValueError for a wrong shape, an empty waveform or an unsupported bandwidth.
        """
        if x.dim() != 3 or x.shape[1] != self.config.channels or x.shape[-1] == 0:
            raise ValueError(
                f"the waveform must have shape [batch, {self.config.channels}, samples >= 1],"
                f" not {list(x.shape)}"
            )
        n_q = self.config.n_q(bandwidth)
        length = self.config.segment_length or x.shape[-1]
        stride = self.config.segment_stride or x.shape[-1]
        starts = range(0, x.shape[-1], stride)
        return [self._encode_segment(x[..., start : start + length], n_q) for start in starts]

    def _encode_segment(self, x: Tensor, n_q: int) -> Frame:
        scale = None
        if self.config.normalize:
            mono = x.mean(dim=1, keepdim=True)
            loudness = mono.pow(2).mean(dim=2, keepdim=True).sqrt() + 1e-8
            x = x / loudness
            scale = loudness.reshape(-1, 1)
        return self.quantizer.encode(self.encoder(x), n_q).transpose(0, 1), scale

    def decode(self, frames: Sequence[Frame]) -> Tensor:
        """Waveform float32 [B, C, T'] of the segments that `encode` returned; T' is a multiple of
        the hop (the caller trims it). Raises ValueError when there are none."""
        if not frames:
            raise ValueError("frames must hold at least one segment")
        segments = [self._decode_segment(*frame) for frame in frames]
        stride = self.config.segment_stride
        if stride is not None:
            return overlap_add(segments, stride)
        if len(segments) != 1:
            raise ValueError(f"{self.config.name} has one segment, not {len(segments)}")
        return segments[0]

    def _decode_segment(self, codes: Tensor, scale: Tensor | None) -> Tensor:
        out: Tensor = self.decoder(self.quantizer.decode(codes.transpose(0, 1)))
        return out if scale is None else out * scale.reshape(-1, 1, 1)

    def forward(self, x: Tensor, bandwidth: float | None = None) -> Tensor:
        """Code and decode x [B, C, T]; the result has the same shape."""
        return self.decode(self.encode(x, bandwidth))[..., : x.shape[-1]]
