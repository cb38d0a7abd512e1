"""Residual vector quantiser with codebooks learned by exponential moving averages (paper 3.2).

The search and the decoding follow the released models' order of float32 operations. The training
forward differs from theirs where theirs does not work: k-means initialisation keeps the codewords'
norms, unused codes are revived for good, and every codebook's commitment loss reaches the encoder.
In a distributed run the codebooks learn from the vectors of all ranks and stay equal on all, as if
one process had all ranks' batches, rank 0's first. All is computed in float32, also under autocast.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encodec_fast.models.collective import from_rank_zero, joined_rows, sum_ranks
from encodec_fast.models.config import ModelConfig


class Quantized(NamedTuple):
    """What the training forward returns.

    latents: float32 [B, D, F] with the straight-through gradient; codes: int64 [n_q, B, F];
    commitment: float32 scalar, the mean over codebooks of the mean squared error.
    """

    latents: Tensor
    codes: Tensor
    commitment: Tensor


def kmeans(samples: Tensor, count: int, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster the samples [M, D] of all ranks into `count` means [count, D] and their sizes
    [count], float32.

    Starts from a random choice of samples (with repetition when there are fewer than `count`); a
    cluster that becomes empty keeps its mean. The sizes are those of the returned means' clusters.
    """
    total = int(sum_ranks(torch.tensor(samples.shape[0], device=samples.device)))
    if total >= count:
        chosen = torch.randperm(total, device=samples.device)[:count]
    else:
        chosen = torch.randint(total, (count,), device=samples.device)
    means = joined_rows(samples, from_rank_zero(chosen))
    for _ in range(iterations):
        sizes, sums = _cluster_sums(samples, nearest(samples, means), count)
        quotients = (sums / sizes.clamp(min=1)[:, None]).to(means.dtype)
        means = torch.where(sizes[:, None] > 0, quotients, means)
    sizes, _ = _cluster_sums(samples, nearest(samples, means), count)
    return means, sizes.to(means.dtype)


def nearest(samples: Tensor, embed: Tensor) -> Tensor:
    """Index int64 [M] of the entry of `embed` [N, D] closest to each sample [M, D], both float32.

    The distance is evaluated in float32 as (|r|^2 - 2 r.e) + |e|^2; ties go to the lowest index.
    """
    entries = embed.t()
    with torch.autocast(samples.device.type, enabled=False):
        distance = samples.pow(2).sum(1, keepdim=True) - 2 * samples @ entries
        return (distance + entries.pow(2).sum(0, keepdim=True)).argmin(dim=-1)


def _cluster_sums(samples: Tensor, codes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Sizes float64 [count] and sums float64 [count, D] of the samples of each code, of all ranks.

    In float64 so that, once rounded to float32, they do not depend on how the samples are divided
    among ranks.
    """
    dimension = samples.shape[1]
    both = torch.zeros(count * (1 + dimension), dtype=torch.float64, device=samples.device)
    sizes, sums = both[:count], both[count:].view(count, dimension)
    sizes.copy_(torch.bincount(codes, minlength=count))
    sums.index_add_(0, codes, samples.double())
    sum_ranks(both)
    return sizes, sums


class Codebook(nn.Module):
    """One codebook: `embed` [N, D] and, for training, moving averages of cluster sizes and sums."""

    embed: Tensor
    embed_avg: Tensor
    cluster_size: Tensor
    inited: Tensor

    def __init__(
        self,
        size: int,
        dimension: int,
        decay: float = 0.99,
        kmeans_iterations: int = 50,
        dead_share: float = 0.1,
    ) -> None:
        super().__init__()
        self.decay = decay
        self.kmeans_iterations = kmeans_iterations
        self.dead_share = dead_share
        self.reference = False  # train as the released code does, for comparison (spec 2.5, 2.6)
        embed = torch.empty(size, dimension)
        nn.init.kaiming_uniform_(embed)
        self.register_buffer("inited", torch.zeros(1))
        self.register_buffer("cluster_size", torch.zeros(size))
        self.register_buffer("embed", embed)
        self.register_buffer("embed_avg", embed.clone())

    def quantize(self, x: Tensor) -> Tensor:
        """The code int64 [M] of each vector of x [M, D]."""
        return nearest(x, self.embed)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set the codewords by k-means over x [M, D]. The sums are means times sizes: with the
        bare means, as released, the first update would divide every codeword by its size."""
        means, sizes = kmeans(x, self.embed.shape[0], self.kmeans_iterations)
        self.embed.copy_(means)
        self.cluster_size.copy_(sizes)
        self.embed_avg.copy_(means if self.reference else means * sizes[:, None])
        self.inited.fill_(1)

    @torch.no_grad()
    def update(self, x: Tensor, codes: Tensor) -> None:
        """One moving-average step with the vectors x [M, D] and their codes [M].

        Each cluster's size and sum decay towards the batch's; the codewords are their quotients,
        sizes smoothed by 1e-5. Codes used less than `dead_share` of the mean are then replaced.
        """
        size = self.embed.shape[0]
        sizes, sums = _cluster_sums(x, codes, size)
        self.cluster_size.lerp_(sizes.float(), 1 - self.decay)
        self.embed_avg.lerp_(sums.float(), 1 - self.decay)
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + 1e-5) / (total + size * 1e-5) * total
        self.embed.copy_(self.embed_avg / smoothed[:, None])
        if not self.reference:  # whose expiry the next update undoes
            self._revive_dead(x, sizes.sum())

    def _revive_dead(self, x: Tensor, total: Tensor) -> None:
        """Give dead codes a random one of all ranks' `total` vectors, in the averages too: else the
        next update would undo it. They start at the mean use, so they live long enough to be found.
        """
        mean = self.cluster_size.mean()
        dead = torch.nonzero(self.cluster_size < self.dead_share * mean)[:, 0]
        if dead.numel() == 0:
            return
        drawn = torch.randint(int(total), (dead.numel(),), device=x.device)
        chosen = joined_rows(x, from_rank_zero(drawn))
        self.embed[dead] = chosen
        self.embed_avg[dead] = chosen * mean
        self.cluster_size[dead] = mean

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codewords [M, D] and codes [M] of x [M, D]; in training mode also learns from x."""
        if self.training and not self.inited.item():
            self.initialise(x.detach())
        codes = self.quantize(x)
        quantized = F.embedding(codes, self.embed)
        if self.training:
            self.update(x.detach(), codes)
        return quantized, codes


class VectorQuantizer(nn.Module):
    """One step of the residual quantiser: holds the codebook under the released key names."""

    def __init__(self, codebook: Codebook) -> None:
        super().__init__()
        self.codebook = codebook


class ResidualVectorQuantizer(nn.Module):
    """Codebooks in sequence, each quantising what the ones before it left over."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            VectorQuantizer(Codebook(config.codebook_size, config.dimension))
            for _ in range(config.n_codebooks)
        )

    def codebook(self, index: int) -> Codebook:
        """The codebook of step `index`."""
        codebook = self.layers[index].codebook
        assert isinstance(codebook, Codebook)
        return codebook

    def encode(self, z: Tensor, n_q: int) -> Tensor:
        """Latents float32 [B, D, F] to codes int64 [n_q, B, F]."""
        batch, dimension, frames = z.shape
        residual = z.float().transpose(1, 2).reshape(-1, dimension)
        codes = []
        for index in range(n_q):
            codebook = self.codebook(index)
            codes.append(codebook.quantize(residual))
            residual = residual - F.embedding(codes[-1], codebook.embed)
        return torch.stack(codes).reshape(n_q, batch, frames)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [n_q, B, F] to latents float32 [B, D, F], summed in codebook order."""
        total = torch.zeros((), device=codes.device)
        for index, layer_codes in enumerate(codes):
            total = total + F.embedding(layer_codes, self.codebook(index).embed)
        return total.transpose(1, 2)

    def forward(self, z: Tensor, n_q: int, reference_gradients: bool = False) -> Quantized:
        """Training forward of latents z [B, D, F] with the first `n_q` codebooks.

        Codewords are detached before they are subtracted, so each commitment loss has its gradient
        with respect to z; one straight-through estimator spans the sum. `reference_gradients` does
        as the released code (spec 2.7): only the first codebook's commitment has a gradient. In a
        distributed run all ranks call this alike.
        """
        batch, dimension, frames = z.shape
        flat = z.float().transpose(1, 2).reshape(-1, dimension)
        residual, total = flat, torch.zeros_like(flat)
        codes, losses = [], []
        for index in range(n_q):
            quantized, layer_codes = self.codebook(index)(residual)
            losses.append(F.mse_loss(residual, quantized))
            codes.append(layer_codes)
            total = total + quantized
            residual = residual - quantized
            if reference_gradients:
                residual = residual.detach()
        through = flat + (total - flat).detach()
        return Quantized(
            through.reshape(batch, frames, dimension).transpose(1, 2),
            torch.stack(codes).reshape(n_q, batch, frames),
            torch.stack(losses).mean(),
        )
