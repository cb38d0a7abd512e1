"""transformers' EncodecModel (4.40 to 5.x), alone or inside MusicGen, Bark and others."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import EncodecModel
from transformers.models.encodec.modeling_encodec import (
    EncodecConv1d,
    EncodecConvTranspose1d,
    EncodecDecoder,
    EncodecEncoder,
    EncodecEuclideanCodebook,
    EncodecLSTM,
    EncodecResidualVectorQuantizer,
    EncodecResnetBlock,
    EncodecVectorQuantization,
)

from encodec_fast.integrations.modules import AcceleratedCodebooks, AcceleratedNetwork, Kinds, Stand
from encodec_fast.integrations.seanet import Classes, UnsupportedError

CODEC = EncodecModel


class AcceleratedEncoder(AcceleratedNetwork, EncodecEncoder):
    """EncodecEncoder on the native core."""


class AcceleratedDecoder(AcceleratedNetwork, EncodecDecoder):
    """EncodecDecoder on the native core."""


class AcceleratedQuantizer(AcceleratedCodebooks, EncodecResidualVectorQuantizer):
    """EncodecResidualVectorQuantizer on the native core."""

    def encode(self, embeddings: Tensor, bandwidth: float | None = None) -> Tensor:
        """As EncodecResidualVectorQuantizer.encode."""
        n_q: Any = self.get_num_quantizers_for_bandwidth
        return self.search(embeddings, n_q(bandwidth))

    def decode(self, codes: Tensor) -> Tensor:
        """As EncodecResidualVectorQuantizer.decode."""
        return self.look_up(codes)


class ExactLengthsModel(EncodecModel):
    """EncodecModel whose `encode` gives each item of a padded batch the codes it would have alone.

    Items that end sooner have codes 0, and scales 0 where they lack a whole chunk.
    `last_frame_pad_length` is that of the longest item.
    """

    def encode(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        bandwidth: float | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """As EncodecModel.encode; padding_mask [batch, samples] or [batch, channels, samples] marks
        each item's samples, which lie side by side. Raises ValueError for other masks."""
        if padding_mask is None or bool(padding_mask.bool().all()):
            return super().encode(input_values, padding_mask, bandwidth, return_dict)
        if return_dict is None:
            return_dict = self.config.return_dict
        spans = _spans(padding_mask, len(input_values))
        alone = [
            super(ExactLengthsModel, self).encode(
                input_values[item : item + 1, :, begin:end], None, bandwidth, True
            )
            for item, (begin, end) in enumerate(spans)
        ]
        longest = max(alone, key=lambda out: out.audio_codes.shape[::3])
        chunks, _, n_q, frames = longest.audio_codes.shape
        codes = longest.audio_codes.new_zeros(chunks, len(alone), n_q, frames)
        scales: list[Any] = [None] * chunks
        if self.config.normalize:
            scales = [input_values.new_zeros(len(alone), 1) for _ in range(chunks)]
        for item, out in enumerate(alone):
            own = out.audio_codes
            codes[: len(own), item, :, : own.shape[3]] = own[:, 0]
            for chunk, scale in enumerate(out.audio_scales if self.config.normalize else ()):
                scales[chunk][item] = scale.reshape(-1)
        values = {**longest, "audio_codes": codes, "audio_scales": scales}
        return type(longest)(**values) if return_dict else tuple(values.values())


def _spans(mask: Tensor, batch: int) -> list[tuple[int, int]]:
    """Where each item's samples begin and end."""
    rows = mask.reshape(len(mask), -1, mask.shape[-1])[:, 0].bool()
    spans = []
    for row in rows:
        marked = row.nonzero()
        begin, end = (int(marked[0]), int(marked[-1]) + 1) if len(marked) else (0, 0)
        if end - begin != len(marked) or begin == end:
            raise ValueError(
                "padding_mask: expected samples side by side, one or more, in each item"
            )
        spans.append((begin, end))
    if len(spans) != batch:
        raise ValueError(
            f"padding_mask: expected a row for each of {batch} items, found {len(spans)}"
        )
    return spans


def attach(model: Any, exact_lengths: bool) -> None:
    """What acceleration does to the model itself. Raises UnsupportedError."""
    if exact_lengths:
        if type(model) not in (EncodecModel, ExactLengthsModel):
            raise UnsupportedError(f"exact_lengths: the model is a {type(model).__name__}")
        model.__class__ = ExactLengthsModel
    else:
        detach(model)


def detach(model: Any) -> None:
    """Undo it."""
    if type(model) is ExactLengthsModel:
        model.__class__ = EncodecModel


_KINDS = Kinds(
    Classes(EncodecConv1d, EncodecConvTranspose1d, EncodecResnetBlock, EncodecLSTM),
    "layers",
    AcceleratedEncoder,
    AcceleratedDecoder,
    AcceleratedQuantizer,
    (nn.ModuleList, EncodecVectorQuantization, EncodecEuclideanCodebook),
)


def stands(model: Any, threads: int | None) -> list[Stand]:
    """What can stand in for the modules of an EncodecModel. Raises UnsupportedError."""
    config = model.config
    encoder = (model.encoder, config.audio_channels)
    decoder = (model.decoder, config.hidden_size)
    return _KINDS.stands(encoder, decoder, model.quantizer, threads)
