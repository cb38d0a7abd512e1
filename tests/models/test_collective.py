"""Two processes must learn what one process learns from both their batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import CAUSAL
from torch import Tensor, distributed, nn
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from encodec_fast.models.collective import from_rank_zero, joined_rows, rank, sum_ranks, world
from encodec_fast.models.rvq import ResidualVectorQuantizer
from encodec_fast.training.balancer import Balancer

WORLD = 2
CONFIG = replace(CAUSAL, dimension=4, codebook_size=16, bandwidths=(1.5, 3.0))
UNEVEN = (3, 2)  # items of each rank's batch
EVEN = (2, 2)


class Coder(nn.Module):
    """A layer with parameters before the quantiser, as in a codec."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = nn.Conv1d(4, 4, 1)
        self.quantizer = ResidualVectorQuantizer(CONFIG)
        for index in range(CONFIG.n_codebooks):
            codebook = self.quantizer.codebook(index)
            codebook.decay = 0.5  # so that codes die within a few steps
            codebook.kmeans_iterations = 5

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        out = self.quantizer(self.layer(x), CONFIG.n_codebooks)
        return out.codes, out.commitment


def batches(items: tuple[int, ...]) -> list[Tensor]:
    """Five joined batches [items, 4, 20]; the last ones are elsewhere, which kills codes."""
    random = torch.Generator().manual_seed(9)
    joined = [torch.randn(sum(items), 4, 20, generator=random) for _ in range(5)]
    return [*joined[:2], *(5 + 0.5 * batch for batch in joined[2:])]


def learn(coder: nn.Module, joined: list[Tensor], rows: slice) -> dict[str, Any]:
    """Codes of every step, then the state and the last gradients."""
    torch.manual_seed(7)
    codes = []
    for batch in joined:
        coder.zero_grad()
        found, commitment = coder(batch[rows])
        commitment.backward()
        codes.append(found)
    return {
        "codes": codes,
        "state": {key.removeprefix("module."): value for key, value in coder.state_dict().items()},
        "gradients": [parameter.grad for parameter in coder.parameters()],
    }


def own_rows(items: tuple[int, ...]) -> slice:
    """The rows of this rank in the joined batch."""
    start = sum(items[: rank()])
    return slice(start, start + items[rank()])


def balance(rows: slice) -> Tensor:
    """The balanced gradient [rows, 1, 6] of two losses, the second step's."""
    balancer = Balancer({"a": 1.0, "b": 2.0}, decay=0.5)
    random = torch.Generator().manual_seed(8)
    gradient = torch.empty(0)
    for scale in (1.0, 30.0):
        y, pull = torch.randn(2, sum(UNEVEN), 1, 6, generator=random)
        y = y[rows].requires_grad_()
        losses = {"a": (y * scale * pull[rows]).sum(), "b": y.pow(2).sum()}
        gradient = balancer.gradient(losses, y)
    return gradient


def work(process: int, folder: Path) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=process, world_size=WORLD
    )
    assert (rank(), world()) == (process, WORLD)
    mine = torch.arange(process, process + 2.0)
    result: dict[str, Any] = {
        "sum": sum_ranks(mine.clone()),
        "broadcast": from_rank_zero(mine.clone()),
        "rows": joined_rows(torch.full((2 + process, 1), float(process)), torch.tensor([4, 1, 2])),
        "uneven": learn(Coder(), batches(UNEVEN), own_rows(UNEVEN)),
        "balanced": balance(own_rows(UNEVEN)),
        "parallel": learn(DistributedDataParallel(Coder()), batches(EVEN), own_rows(EVEN)),
    }
    torch.save(result, folder / f"{process}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    spawn(work, (folder,), nprocs=WORLD)
    return [torch.load(folder / f"{process}.pt") for process in range(WORLD)]


def test_one_process_is_alone() -> None:
    assert (world(), rank()) == (1, 0)
    x = torch.randn(4, 2)
    assert sum_ranks(x) is x and from_rank_zero(x) is x
    assert torch.equal(joined_rows(x, torch.tensor([2, 0])), x[[2, 0]])


def test_exchanges(results: list[dict[str, Any]]) -> None:
    for result in results:
        assert result["sum"].tolist() == [1, 3]
        assert result["broadcast"].tolist() == [0, 1]
        assert result["rows"].tolist() == [[1], [0], [1]]


@pytest.mark.parametrize(("run", "items"), [("uneven", UNEVEN), ("parallel", EVEN)])
def test_ranks_learn_what_one_process_learns(
    results: list[dict[str, Any]], run: str, items: tuple[int, ...]
) -> None:
    alone = learn(Coder(), batches(items), slice(None))
    first, second = (result[run] for result in results)
    for key, value in alone["state"].items():
        assert torch.equal(first["state"][key], second["state"][key]), key
        assert torch.equal(first["state"][key], value), key
    for step, codes in enumerate(alone["codes"]):
        assert torch.equal(torch.cat([first["codes"][step], second["codes"][step]], dim=1), codes)


def test_parallel_gradients_are_those_of_the_joined_batch(results: list[dict[str, Any]]) -> None:
    alone = learn(Coder(), batches(EVEN), slice(None))
    for result in results:
        for found, expected in zip(
            result["parallel"]["gradients"], alone["gradients"], strict=True
        ):
            torch.testing.assert_close(found, expected)


def test_balanced_gradients_are_those_of_the_joined_batch(results: list[dict[str, Any]]) -> None:
    """Items have norms of their own: that of a rank's batch alone would scale it otherwise."""
    found = torch.cat([result["balanced"] for result in results])
    torch.testing.assert_close(found, balance(slice(None)))
    assert not torch.allclose(found[:3], balance(slice(3)))


def test_the_runs_revive_dead_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the tests above would say nothing about it."""
    revived = []

    def count(x: Tensor, indices: Tensor) -> Tensor:
        revived.append(len(indices))
        return joined_rows(x, indices)

    monkeypatch.setattr("encodec_fast.models.rvq.joined_rows", count)
    for items in (UNEVEN, EVEN):
        revived.clear()
        learn(Coder(), batches(items), slice(None))
        assert len(revived) > CONFIG.n_codebooks  # the first ones start k-means
