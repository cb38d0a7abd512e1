"""What the processes of a distributed run do together; a single process does it alone.

Every function that exchanges something must be called by all ranks, in the same order.
"""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def world() -> int:
    """The number of processes, 1 without an initialised torch.distributed."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """This process's number from 0 to world() - 1, 0 without an initialised torch.distributed."""
    return distributed.get_rank() if _together() else 0


def sum_ranks(t: Tensor) -> Tensor:
    """`t`, contiguous and of one shape on all ranks, summed over them in place."""
    if world() > 1:
        distributed.all_reduce(t)
    return t


def from_rank_zero(t: Tensor) -> Tensor:
    """`t`, contiguous and of one shape on all ranks, overwritten by what it is on rank 0."""
    if world() > 1:
        distributed.broadcast(t, src=0)
    return t


def joined_rows(x: Tensor, indices: Tensor) -> Tensor:
    """Rows [N, D] at `indices` int64 [N] of all ranks' x [M, D], one below the other by rank.

    `indices` must be equal on all ranks; M may differ.
    """
    if world() == 1:
        return x[indices]
    counts = torch.zeros(world(), dtype=torch.int64, device=x.device)
    counts[rank()] = x.shape[0]
    local = indices - sum_ranks(counts)[: rank()].sum()
    here = (local >= 0) & (local < x.shape[0])
    rows = torch.zeros(indices.shape[0], x.shape[1], dtype=x.dtype, device=x.device)
    rows[here] = x[local[here]]
    return sum_ranks(rows)  # one rank has the row, the others add 0: exact
