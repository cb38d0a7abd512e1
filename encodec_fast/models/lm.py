"""The entropy language model: predicts each frame's codes from the frames before (paper 3.3).

A Transformer over time whose input is the sum of the embeddings of the previous frame's codes. The
state dict has the released checkpoints' key names. One step at a time, the operations and their
order are the reference's, so that the probabilities are its own to the last bit, as files written
with a language model need them (models/lm_coder.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encodec_fast.models.config import ModelConfig

PAST_SECONDS = 3.5


def positions(offset: int, count: int, dim: int) -> Tensor:
    """Sinusoids float32 [count, dim] of the positions from `offset`: cosines, then sines."""
    half = dim // 2
    time = torch.arange(offset, offset + count, dtype=torch.float32)[:, None]
    phase = time / 10000 ** (torch.arange(half, dtype=torch.float32) / (half - 1))
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


class TransformerLayer(nn.Module):
    """One post-norm layer: attention, then a feed-forward block of four times the width."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.linear1 = nn.Linear(dim, 4 * dim)
        self.linear2 = nn.Linear(4 * dim, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, past: Tensor, reach: int) -> Tensor:
        """[B, T, dim] to the same shape; `past` [B, P, dim] are this layer's earlier inputs. Each
        step attends to itself and to `reach` steps before it."""
        keys = torch.cat([past, x], dim=1)
        key_at = torch.arange(keys.shape[1], device=x.device)
        delta = key_at[past.shape[1] :, None] - key_at
        hidden = ~((delta >= 0) & (delta <= reach))
        # need_weights: with it another computation, other in the last bits, is chosen.
        mixed, _ = self.self_attn(x, keys, keys, attn_mask=hidden, need_weights=False)
        x = self.norm1(x + mixed)
        out: Tensor = self.norm2(x + self.linear2(F.gelu(self.linear1(x))))
        return out


class Transformer(nn.Module):
    """Input norm, positions and layers, with one state per layer: its latest inputs."""

    def __init__(self, dim: int, heads: int, layers: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.norm_in = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(TransformerLayer(dim, heads) for _ in range(layers))

    def forward(
        self, x: Tensor, states: list[Tensor] | None, offset: int
    ) -> tuple[Tensor, list[Tensor]]:
        """x [B, T, dim] at positions from `offset`; returns the same shape and the new states.

        Without states each layer starts from one all-zero entry. It is attended to like any other
        (its key and value are the biases) until `reach` newer ones push it out.
        """
        dim = x.shape[-1]
        x = self.norm_in(x) + positions(offset, x.shape[1], dim).to(x)
        if states is None:
            states = [x.new_zeros(x.shape[0], 1, dim) for _ in self.layers]
        new_states = []
        for layer, past in zip(self.layers, states, strict=True):
            new_states.append(torch.cat([past, x], dim=1)[:, -self.reach :])
            x = layer(x, past, self.reach)
        return x, new_states


class LanguageModel(nn.Module):
    """Probabilities of the codes of the next frame, for all bandwidths of one codec model."""

    def __init__(
        self, config: ModelConfig, dim: int = 200, heads: int = 8, layers: int = 5
    ) -> None:
        super().__init__()
        self.config = config
        entries = config.codebook_size
        self.transformer = Transformer(dim, heads, layers, int(PAST_SECONDS * config.frame_rate))
        self.emb = nn.ModuleList(nn.Embedding(entries + 1, dim) for _ in range(config.n_codebooks))
        self.linears = nn.ModuleList(nn.Linear(dim, entries) for _ in range(config.n_codebooks))

    def forward(
        self, indices: Tensor, states: list[Tensor] | None = None, offset: int = 0
    ) -> tuple[Tensor, list[Tensor], int]:
        """Probabilities of T frames given each one's predecessor.

        indices: int64 [B, K, T], 0 before the first frame, else code + 1; states: those returned
        for the frames before (None at the start); offset: how many frames came before. Returns
        float32 [B, entries, K, T], the states, and the new offset. Raises ValueError for more
        codebooks than the model has.
        """
        n_q, steps = indices.shape[1:]
        if not 1 <= n_q <= len(self.emb):
            raise ValueError(f"indices must hold 1 to {len(self.emb)} codebooks, not {n_q}")
        x = self.emb[0](indices[:, 0])
        for k in range(1, n_q):
            x = x + self.emb[k](indices[:, k])
        out, states = self.transformer(x, states, offset)
        logits = torch.stack([self.linears[k](out) for k in range(n_q)], dim=1)
        return logits.permute(0, 3, 1, 2).softmax(dim=1), states, offset + steps
