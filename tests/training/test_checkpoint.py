"""Checkpoints: what was saved comes back, and neither kills, full disks nor damage go unnoticed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from encodec_fast.training.checkpoint import CheckpointStore, read_checkpoint

ARCHITECTURE = {"model": {"filters": 32, "ratios": (8, 5, 4, 2), "causal": True}, "n_q": 8}


def state(value: float = 0.0) -> dict[str, object]:
    """A small run's state with every kind of value."""
    torch.manual_seed(3)
    layer = torch.nn.Linear(40, 30)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.randn(2, 40)).sum().backward()
    optimizer.step()
    return {
        "architecture": ARCHITECTURE,
        "model": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": random.Random(5).getstate(),
        "torch": torch.get_rng_state(),
        "numpy": np.random.default_rng(6).bit_generator.state,
        "value": value,
        "nothing": None,
    }


def assert_equal(found: object, expected: object) -> None:
    if isinstance(expected, torch.Tensor):
        assert isinstance(found, torch.Tensor) and torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert isinstance(found, dict) and list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert type(found) is type(expected) and len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails as on a full disk, with another error number."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save("last.pt", state())
    assert path == store.path("last.pt") and [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    assert_equal(store.load("last.pt", ARCHITECTURE), state())
    found = store.load("last.pt")
    generator = random.Random()
    generator.setstate(found["random"])
    assert generator.random() == random.Random(5).random()


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, every=1)
    store.save_step(1, state(1.0), best=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    large = {**state(2.0), "more": torch.zeros(100_000)}
    with largest_file(50_000), pytest.raises(OSError, match="cannot save") as caught:
        store.save_step(2, large, best=True)
    assert caught.value.filename == str(tmp_path / "last.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == names  # no partial file either
    for name in names:
        assert_equal(store.load(name, ARCHITECTURE), state(1.0))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "missing")
    with pytest.raises(FileNotFoundError, match=r"missing.last\.pt"):
        store.save("last.pt", state())


def test_a_checkpoint_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path)
    store.save("last.pt", {"value": 1})
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(handle: int) -> None:
        held = read_checkpoint(tmp_path / "last.pt")["value"]
        events.append(f"sync while last.pt holds {held}")
        fsync(handle)

    def watched_replace(self: Path, target: Path) -> Path:
        events.append(f"rename {self.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    store.save("last.pt", {"value": 2})
    assert events[:2] == ["sync while last.pt holds 1", "rename last.pt.partial"]
    assert events[2:] in (["sync while last.pt holds 2"], [])  # the folder, where there are handles


def test_kept_checkpoints(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, every=20)
    for step in (0, 10, 20, 30, 40):
        store.save_step(step, {"step": step}, best=step == 10)
    found = {path.name: read_checkpoint(path)["step"] for path in tmp_path.iterdir()}
    assert found == {"last.pt": 40, "best.pt": 10, "step_00000020.pt": 20, "step_00000040.pt": 40}


def test_one_that_cannot_be_linked_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    CheckpointStore(tmp_path).save_step(1, {"step": 1}, best=True)
    assert [read_checkpoint(tmp_path / name) for name in ("last.pt", "best.pt")] == [
        {"step": 1}
    ] * 2


def test_last_is_replaced_after_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a kill in between would resume behind the step that was to be kept."""
    store = CheckpointStore(tmp_path)
    store.save_step(1, {"step": 1}, best=True)
    replace = Path.replace

    def killed_at_last(self: Path, target: Path) -> Path:
        if target.name == "last.pt":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed_at_last)
    with pytest.raises(KeyboardInterrupt):
        store.save_step(2, {"step": 2}, best=True)
    assert store.load("best.pt")["step"] == 2 and store.load("last.pt")["step"] == 1


def test_a_kill_while_saving_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    program = (
        "import sys, torch\n"
        "from encodec_fast.training.checkpoint import CheckpointStore\n"
        "store, step = CheckpointStore(sys.argv[1]), 0\n"
        "while True:\n"
        "    step += 1\n"
        "    store.save_step(step, {'step': step, 'all': torch.full((10**6,), step)}, best=True)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "last.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1 + random.random() / 10)
    finally:
        run.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        run.wait()
    store = CheckpointStore(tmp_path)
    last, best = store.load("last.pt"), store.load("best.pt")
    for found in (last, best):
        assert (found["all"] == found["step"]).all()
    assert best["step"] in (last["step"], last["step"] + 1)
    store.save_step(10**6, {"step": 10**6}, best=True)  # what the kill has left is in nobody's way
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_another_architecture_is_refused_with_what_differs(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save("last.pt", state())
    as_lists = {"model": {**ARCHITECTURE["model"], "ratios": [8, 5, 4, 2]}, "n_q": 8}  # type: ignore[dict-item]
    store.load("last.pt", as_lists)
    other = {"model": {"filters": 16, "ratios": (8, 5, 4), "causal": True, "norm": "weight"}}
    with pytest.raises(ValueError) as caught:
        store.load("last.pt", other)
    assert str(caught.value) == (
        f"{tmp_path / 'last.pt'}: a checkpoint of another architecture (model.filters: expected 16,"
        " found 32; model.ratios: expected [8, 5, 4], found [8, 5, 4, 2]; model.norm: expected"
        " 'weight', found nothing; n_q: expected nothing, found 8)"
    )
    with pytest.raises(ValueError, match="and 15 more"):
        store.load("last.pt", {**ARCHITECTURE, **{f"extra{i}": i for i in range(20)}})
    store.save("bare.pt", {"model": {}})
    with pytest.raises(ValueError, match=r"bare\.pt.*architecture"):
        store.load("bare.pt", ARCHITECTURE)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    store = CheckpointStore(tmp_path)
    data = store.save("last.pt", state()).read_bytes()
    store.path("cut.pt").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"cut\.pt: not a readable checkpoint"):
        store.load("cut.pt")


@pytest.mark.parametrize("content", [b"hello\n" * 50, os.urandom(3000), b"PK\x03\x04" * 20])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "garbage.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"garbage\.pt: not a readable checkpoint"):
        CheckpointStore(tmp_path).load("garbage.pt")


def test_a_changed_byte_is_noticed_wherever_it_matters(tmp_path: Path) -> None:
    """torch.load alone returns changed weights without a word."""
    store = CheckpointStore(tmp_path)
    path = store.save("last.pt", state())
    data = path.read_bytes()
    original, refused = store.load("last.pt"), 0
    generator = random.Random(1)
    for position in generator.sample(range(len(data)), 60):
        changed = bytearray(data)
        changed[position] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        try:
            assert_equal(store.load("last.pt"), original)  # padding of the archive
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 15


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("run_by_the_unpickler",)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Hostile()}, tmp_path / "hostile.pt")
    with pytest.raises(ValueError, match=r"hostile\.pt: not a readable checkpoint"):
        CheckpointStore(tmp_path).load("hostile.pt")
    assert not Path("run_by_the_unpickler").exists()


def test_other_files(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    with pytest.raises(ValueError, match="expected a dict in the checkpoint, found Tensor"):
        CheckpointStore(tmp_path).load("tensor.pt")
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        CheckpointStore(tmp_path).load("none.pt")


@pytest.mark.parametrize("value", [np.float64(1), np.zeros(2), Path("x"), {1, 2}, Hostile()])
def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, value: object) -> None:
    """Or the mistake would come out when the run is to be resumed."""
    store = CheckpointStore(tmp_path)
    store.save("last.pt", {"value": 1})
    with pytest.raises(ValueError, match=r"state\.parts\[1\]\.rate: expected a tensor or a plain"):
        store.save("last.pt", {"parts": [1, {"rate": value}]})
    assert store.load("last.pt") == {"value": 1}


def test_every_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="every: expected a number of steps or 0, found -5"):
        CheckpointStore(tmp_path, every=-5)
