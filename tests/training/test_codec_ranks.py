"""Two processes train what one trains on their joined batches, through torchrun's variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from codec_runs import tiny_settings
from torch.multiprocessing import spawn

from encodec_fast.training.codec_trainer import CodecTrainer
from encodec_fast.training.run import processes
from encodec_fast.training.start import train_codec

WORLD = 2


def learn(folder: Path) -> dict[str, Any]:
    """What four steps leave: two without quantiser, two with codebooks that are set beforehand (the
    first k-means would take another turn from the least difference)."""
    trainer = CodecTrainer(tiny_settings(folder, steps=1000, batch=4))
    generator = torch.Generator().manual_seed(3)
    for index in range(trainer.config.n_codebooks):
        codebook = trainer.model.quantizer.codebook(index)
        codebook.embed.copy_(torch.randn(codebook.embed.shape, generator=generator))
        codebook.embed_avg.copy_(codebook.embed)
        codebook.cluster_size.fill_(1)
        codebook.inited.fill_(1)
        codebook.dead_share = 0.0
    batches = trainer._batches(0, trainer.settings.seed)
    reports = [trainer.train_step(next(batches)).losses for _ in range(4)]
    assert trainer.adversary is not None
    return {
        "losses": reports,
        "gradients": [parameter.grad for parameter in trainer.model.parameters()],
        "model": trainer.model.state_dict(),
        "average": trainer.average.state,
        "networks": trainer.adversary.networks.state_dict(),
    }


def become_rank(number: int, port: int) -> None:
    """What torchrun tells a process."""
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(WORLD)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def work(number: int, folder: Path) -> None:
    become_rank(number, 29517)
    with processes(tiny_settings(folder)):
        torch.save(learn(folder), folder / f"rank{number}.pt")


def finish(number: int, folder: Path) -> None:
    become_rank(number, 29518)
    train_codec(tiny_settings(folder))


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    tiny_settings(tmp_path)  # makes the recordings, once
    spawn(work, (tmp_path,), nprocs=WORLD)
    first, second = (torch.load(tmp_path / f"rank{number}.pt") for number in range(WORLD))
    for part in ("model", "average", "networks"):
        for key, value in first[part].items():
            assert torch.equal(second[part][key], value), f"{part} {key}"
    alone = learn(tmp_path)
    for ours, theirs in zip(first["losses"], alone["losses"], strict=True):
        # The gradient's norm tells its scale, which Adam does not let the weights tell.
        assert ours["gradient"] == pytest.approx(theirs["gradient"], rel=2e-2)
        assert ours.keys() == theirs.keys()
    for step in range(4):
        for name in ("snr", "mel", "l1", "commitment"):
            mean = (first["losses"][step][name] + second["losses"][step][name]) / WORLD
            assert mean == pytest.approx(alone["losses"][step][name], rel=2e-2, abs=1e-3)


def test_a_whole_run_of_two_processes(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    spawn(finish, (tmp_path,), nprocs=WORLD)
    names = {path.name for path in Path(settings.out).iterdir()}
    assert {"tiny.safetensors", "last.pt", "best.pt", "train.log", "settings.yaml"} <= names
    lines = (Path(settings.out) / "train.log").read_text().splitlines()
    assert len(lines) == 5  # the first rank's alone
