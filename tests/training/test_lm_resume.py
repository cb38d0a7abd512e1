"""Runs that end before their time: killed, asked to stop, on a full disk, at a loss of NaN."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from chain_codes import losses_of, settings, trainer

from encodec_fast.training.configuration import load_settings, read_task
from encodec_fast.training.lm_settings import LmSettings
from encodec_fast.training.non_finite import NonFiniteLoss

# With dropout, so that all random numbers take part.
LENGTH = {"steps": 40, "save_steps": 7, "check_steps": 10, "dropout": 0.1}


def test_a_killed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = losses_of(trainer(tmp_path / "whole", **LENGTH))
    killed = tmp_path / "killed"
    program = Path(__file__).parent / "chain_codes.py"
    process = subprocess.Popen(
        [sys.executable, program, killed, json.dumps(LENGTH), "24"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout is not None
    seen = {}
    for line in process.stdout:
        number, loss = line.split()
        seen[int(number)] = loss
        if int(number) == 24:
            process.kill()
            break
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    assert seen == {number: whole[number] for number in range(25)}
    run = trainer(killed, **LENGTH, resume=True)
    assert run.step == 21  # the last that was saved
    rest = losses_of(run)
    assert rest == {number: whole[number] for number in range(21, 40)}
    files = [tmp_path / name / "tiny.entropy.safetensors" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_asked_to_stop_it_ends_its_step_and_saves(tmp_path: Path) -> None:
    whole = losses_of(trainer(tmp_path / "whole", steps=20))
    run = trainer(tmp_path / "stopped", steps=20)
    step = run.train_step

    def stopping() -> float:
        if run.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step()

    run.train_step = stopping  # type: ignore[method-assign]
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="stopped at step 6: resume=true"):
        run.run()
    assert signal.getsignal(signal.SIGTERM) == before
    rest = losses_of(trainer(tmp_path / "stopped", steps=20, resume=True))
    assert rest == {number: whole[number] for number in range(6, 20)}


def test_a_full_disk_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer(tmp_path)
    run.train_step()
    run.save()
    before = (tmp_path / "last.pt").read_bytes()
    run.train_step()

    def full(state: object, file: object) -> None:
        file.write(b"half of it")  # type: ignore[attr-defined]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        run.save()
    assert "last.pt" in str(caught.value)
    monkeypatch.undo()
    assert (tmp_path / "last.pt").read_bytes() == before
    assert sorted(path.name for path in tmp_path.glob("*.pt*")) == ["last.pt"]
    assert trainer(tmp_path, resume=True).step == 1


def test_the_settings_of_a_run_are_kept_as_a_configuration(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=1)
    run.run()
    assert read_task(tmp_path / "settings.yaml") == "lm"
    assert load_settings(LmSettings, tmp_path / "settings.yaml") == run.settings.rooted()


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    trainer(tmp_path, steps=1).run()
    before = (tmp_path / "settings.yaml").read_text()
    with pytest.raises(ValueError, match="holds a run: resume=true"):
        trainer(tmp_path, steps=2)
    assert (tmp_path / "settings.yaml").read_text() == before


@pytest.mark.parametrize(
    ("changes", "found"), [({"dim": 24}, "dim: expected 24, found 16"), ({"layers": 2}, "layers")]
)
def test_another_architecture_is_refused(
    tmp_path: Path, changes: dict[str, int], found: str
) -> None:
    trainer(tmp_path, steps=1).run()
    with pytest.raises(ValueError, match=f"last.pt: a checkpoint of another arch.*{found}"):
        trainer(tmp_path, resume=True, **changes)


def test_a_loss_of_nan_stops_the_run_and_names_the_batch(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    for _ in range(3):
        run.train_step()
    with torch.no_grad():
        run.model.emb[0].weight[3] = float("nan")
    before = {key: value.clone() for key, value in run.model.state_dict().items()}
    codes, sources = run.sequences.batch(8, 3)
    with pytest.raises(NonFiniteLoss, match="step 3: loss is nan") as caught:
        run.run()
    assert caught.value.sources == sources
    assert sources[0] in str(caught.value)
    kept = torch.load(tmp_path / "bad_batch.pt", weights_only=True)
    assert kept["step"] == 3 and torch.equal(kept["waves"], codes[:, : kept["waves"].shape[1]])
    for key, value in run.model.state_dict().items():
        assert torch.equal(value.nan_to_num(7), before[key].nan_to_num(7)), key
    assert not (tmp_path / "last.pt").exists()


def test_after_a_loss_of_nan_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """A loss that is NaN once (a fault of the machine, say): the same run can take the step again,
    and one that begins at its last checkpoint takes all the same steps."""
    whole = losses_of(trainer(tmp_path / "whole", **LENGTH))
    run = trainer(tmp_path / "broken", **LENGTH)
    backward = run._backward

    def broken(codes: torch.Tensor, offset: int) -> torch.Tensor:
        loss = backward(codes, offset)
        return loss * float("nan") if run.step == 12 else loss

    run._backward = broken  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLoss, match="step 12: loss is nan"):
        run.run()
    run._backward = backward  # type: ignore[method-assign]
    assert [run.train_step().hex() for _ in range(3)] == [whole[step] for step in range(12, 15)]
    resumed = trainer(tmp_path / "broken", **LENGTH, resume=True)
    assert resumed.step == 10  # it was checked, and the best so far
    assert losses_of(resumed) == {number: whole[number] for number in range(10, 40)}


def test_a_checkpoint_has_nothing_that_is_not_loaded(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=1)
    run.run()
    saved = set(run.store.load("last.pt"))
    state = {"model", "average", "optimizer", "step", "elapsed", "best"}
    assert saved == {"architecture", *state}


def test_time_bounds_the_run(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=1000, minutes=1.0)
    run.elapsed = 30.0
    assert run.progress() == 0.5
    run.step = 700
    assert run.progress() == 0.7
    run.elapsed = 61.0
    assert run.progress() == 1.0 and not run.going()


def test_learning_rate_warms_up_and_ends_at_zero(tmp_path: Path) -> None:
    chosen = settings(tmp_path).optimizer
    fast = type(chosen)(lr=1.0, warmup=100)
    run = trainer(tmp_path, steps=1000, optimizer=fast)
    rates = []
    for run.step in (0, 99, 500, 1000):
        rates.append(run._learning_rate())
    assert rates == pytest.approx([0.01, 0.976, 0.5, 0.0], abs=1e-3)
