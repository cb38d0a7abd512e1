"""The balancer against the published formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from encodec_fast.training.balancer import Balancer


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(6)


def test_shares_of_a_toy_problem_are_the_configured_ones() -> None:
    """Two losses that differ by a factor of a million in size pull y to different targets; they
    steer 3 to 1, as reported and as found by taking the combined gradient apart."""
    targets = torch.randn(2, 4, 1, 50)
    balancer = Balancer({"large": 3.0, "small": 1.0}, decay=0.9)
    y = torch.zeros(4, 1, 50, requires_grad=True)
    reported, found = torch.zeros(2), torch.zeros(2)
    for _ in range(300):
        losses = {
            "large": 1e3 * (y - targets[0]).pow(2).mean(),
            "small": 1e-3 * (y - targets[1]).abs().mean(),
        }
        gradient = balancer.gradient(losses, y)
        reported += torch.tensor(list(balancer.shares().values()))
        parts = torch.stack([torch.autograd.grad(loss, y)[0] for loss in losses.values()], dim=-1)
        norms = parts.flatten(1, 2).norm(dim=1).mean(dim=0)
        directions = parts.flatten(0, 2) / norms
        scaled = torch.linalg.lstsq(directions, gradient.flatten()[:, None]).solution[:, 0]
        found += scaled / scaled.sum()
        with torch.no_grad():
            y -= 1e-2 * gradient
    expected = torch.tensor([0.75, 0.25])
    torch.testing.assert_close(found / 300, expected, atol=0.01, rtol=0)
    torch.testing.assert_close(reported / 300, found / 300, atol=1e-4, rtol=0)


@pytest.mark.parametrize("per_batch_item", [True, False])
def test_equals_the_published_formula(per_batch_item: bool) -> None:
    weights = {"a": 3.0, "b": 1.0, "c": 0.5}
    balancer = Balancer(weights, 0.9, total_norm=2.0, per_batch_item=per_batch_item)
    totals, counts = dict.fromkeys(weights, 0.0), dict.fromkeys(weights, 0.0)
    for present in ("ab", "abc", "c", "bc", "ab"):
        y = torch.randn(3, 2, 20, requires_grad=True)
        pulls = {name: 10 ** torch.randn(1) * torch.randn(3, 2, 20) for name in present}
        found = balancer.gradient({name: (y * pull).sum() for name, pull in pulls.items()}, y)
        expected = torch.zeros(3, 2, 20)
        for name, pull in pulls.items():
            norm = pull.norm()
            if per_batch_item:
                norm = torch.stack([item.norm() for item in pull]).mean()
            totals[name] = 0.9 * totals[name] + norm.item()
            counts[name] = 0.9 * counts[name] + 1
            ratio = weights[name] / sum(weights[other] for other in present)
            expected += pull * 2.0 * ratio / (1e-12 + totals[name] / counts[name])
        torch.testing.assert_close(found, expected)


def test_first_step_has_the_total_norm_whatever_the_units() -> None:
    y = torch.randn(4, 1, 50, requires_grad=True)
    pull = torch.randn(4, 1, 50)
    for scale in (1e-4, 1e4):
        gradient = Balancer({"a": 0.1}, total_norm=1.5).gradient({"a": scale * (y * pull).sum()}, y)
        assert gradient.flatten(1).norm(dim=1).mean().item() == pytest.approx(1.5)


def test_a_resumed_balancer_goes_on_alike() -> None:
    def step(balancer: Balancer, seed: int) -> Tensor:
        torch.manual_seed(seed)
        y = torch.randn(2, 1, 9, requires_grad=True)
        return balancer.gradient({"a": (y * torch.randn(9)).sum(), "b": y.pow(2).sum()}, y)

    weights = {"a": 1.0, "b": 2.0}
    first, second = Balancer(weights, 0.5), Balancer(weights, 0.5)
    for seed in range(3):
        step(first, seed)
    state = first.state_dict()
    expected = step(first, 3)
    second.load_state_dict(state)
    assert torch.equal(step(second, 3), expected)
    assert second.shares() == first.shares()
    with pytest.raises(ValueError, match="expected totals of a, found a, b"):
        Balancer({"a": 1.0}).load_state_dict(state)


def test_gradients_of_zero_give_zero() -> None:
    y = torch.zeros(2, 1, 5, requires_grad=True)
    balancer = Balancer({"a": 1.0, "b": 1.0})
    assert balancer.shares() == {}
    gradient = balancer.gradient({"a": y.pow(2).sum(), "b": y.pow(4).sum()}, y)
    assert torch.equal(gradient, torch.zeros_like(y))
    assert balancer.shares() == {"a": 0.0, "b": 0.0}


def test_bad_input() -> None:
    y = torch.zeros(1, 1, 2, requires_grad=True)
    for losses in ({}, {"other": y.sum()}):
        with pytest.raises(ValueError, match="losses: expected some of a, found"):
            Balancer({"a": 1.0}).gradient(losses, y)
    for weights in ({}, {"a": 0.0}, {"a": float("nan")}):
        with pytest.raises(ValueError, match="weights"):
            Balancer(weights)
    with pytest.raises(ValueError, match="decay"):
        Balancer({"a": 1.0}, decay=1.0)
    with pytest.raises(ValueError, match="total_norm"):
        Balancer({"a": 1.0}, total_norm=0.0)
