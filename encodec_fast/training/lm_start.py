"""Where the training of a language model starts: at what its codec knows of its codes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encodec_fast.models.lm import LanguageModel


def initialise(model: LanguageModel, codebooks: Tensor, counts: NDArray[np.int64]) -> None:
    """Start a language model from its codec: codebooks float32 [K, N, D], counts [K, N].

    A code's embedding is its codeword, in one orthogonal projection for all codebooks, so that the
    input is the frame that was decoded; the weights of its output are its codeword in a projection
    of each codebook's own; its bias is the logarithm of its share. So codes that sound alike start
    alike, and the first loss is that of the static tables.
    """
    size, dim = codebooks.shape[2], model.transformer.norm_in.weight.shape[0]
    shares = torch.from_numpy((counts + 1) / (counts + 1).sum(axis=1, keepdims=True))
    scale = codebooks.pow(2).mean(dim=(1, 2)).sum().rsqrt()
    with torch.no_grad():
        shared = torch.nn.init.orthogonal_(torch.empty(size, dim))
        for k, codebook in enumerate(codebooks * scale):
            own = torch.nn.init.orthogonal_(torch.empty(size, dim))
            rows = torch.cat([torch.zeros(1, dim), codebook @ shared])
            model.emb[k].load_state_dict({"weight": rows})
            weight = codebook @ own * 0.1 / codebook.pow(2).mean().sqrt()
            model.linears[k].load_state_dict({"weight": weight, "bias": shares[k].log()})
