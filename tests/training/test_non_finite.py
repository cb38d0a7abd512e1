"""Runs stop at losses that are no numbers, and tell which and of what batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from encodec_fast.training.checkpoint import CheckpointStore
from encodec_fast.training.non_finite import NonFiniteLoss, check_finite, first_bad

NAN, INFINITY = float("nan"), float("inf")


def values(**named: float | list[float]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, requires_grad=True) for name, value in named.items()}


def test_first_bad() -> None:
    assert first_bad({}) is None
    assert first_bad(values(l1=1.0, mel=3e38, gradient=0.0)) is None
    assert first_bad(values(l1=1.0, mel=INFINITY, gradient=NAN)) == "mel"
    assert first_bad(values(l1=1.0, mel=[1.0, -INFINITY, 2.0])) == "mel"
    assert first_bad(values(l1=NAN)) == "l1"
    assert first_bad({"half": torch.tensor(1e5, dtype=torch.float16)}) == "half"


def test_the_batch_is_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    waves, sources = torch.randn(2, 1, 50), ["a.flac@3.1 + b.flac@0.2", "c.flac@9.0"]
    check_finite(41, values(l1=1.0, mel=2.0), waves, sources, store)
    assert not list(tmp_path.iterdir())
    with pytest.raises(NonFiniteLoss) as caught:
        check_finite(42, values(l1=1.0, mel=NAN), waves, sources, store)
    assert str(caught.value) == (
        f"step 42: mel is nan; the batch is in {tmp_path / 'bad_batch.pt'};"
        " its sources: a.flac@3.1 + b.flac@0.2; c.flac@9.0"
    )
    assert isinstance(caught.value, ValueError)
    error = caught.value
    assert (error.step, error.loss, error.sources) == (42, "mel", sources)
    kept = store.load("bad_batch.pt")
    assert (kept["step"], kept["sources"]) == (42, sources) and torch.equal(kept["waves"], waves)
    assert kept["values"]["l1"].item() == 1.0 and kept["values"]["mel"].isnan()


def test_bad_samples_are_told(tmp_path: Path) -> None:
    waves = torch.zeros(2, 1, 50)
    waves[1, 0, 9] = INFINITY
    with pytest.raises(NonFiniteLoss, match="l1 is inf from samples that are not finite either;"):
        check_finite(1, values(l1=INFINITY), waves, ["a", "b"], CheckpointStore(tmp_path))


def test_a_batch_that_cannot_be_kept(tmp_path: Path) -> None:
    """The loss is told all the same, and of many sources the first ones."""
    store, sources = CheckpointStore(tmp_path / "missing"), [f"{i}.wav" for i in range(20)]
    with pytest.raises(NonFiniteLoss, match=r"gradient is -inf; the batch is not kept \(.*") as e:
        check_finite(3, values(gradient=-INFINITY), torch.zeros(20, 1, 4), sources, store)
    assert str(e.value).endswith(
        "its sources: 0.wav; 1.wav; 2.wav; 3.wav; 4.wav; 5.wav; 6.wav; 7.wav; and 12 more"
    )
    assert e.value.sources == sources
