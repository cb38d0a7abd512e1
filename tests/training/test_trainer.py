"""A few steps of the trainer: it learns, saves, goes on, and its checkpoint loads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recordings import write_corpus

from encodec_fast.models.checkpoints import load_checkpoint
from encodec_fast.models.config import CONFIGS
from encodec_fast.training.run import parse_settings
from encodec_fast.training.trainer import Settings, Trainer

TINY = replace(
    CONFIGS["nano_24khz"],
    name="tiny",
    n_filters=2,
    dimension=4,
    codebook_size=16,
    bandwidths=(0.6,),
)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setitem(CONFIGS, "tiny", TINY)
    (tmp_path / "audio").mkdir()
    write_corpus(tmp_path / "audio")
    return Settings(
        audio=str(tmp_path / "audio"),
        out=str(tmp_path / "run"),
        config="tiny",
        steps=4,
        batch=2,
        seconds=0.1,
        plain_steps=2,
    )


def test_run_saves_a_checkpoint_that_loads(settings: Settings) -> None:
    trainer = Trainer(settings)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.run()
    assert trainer.step == 4 and trainer.progress() == 1
    model = load_checkpoint(Path(settings.out) / "last.pt")
    assert model.config == TINY
    for key, value in model.state_dict().items():
        assert torch.equal(value, trainer.average[key])
        assert not torch.equal(value, before[key]), key
    assert all(trainer.model.quantizer.codebook(q).inited for q in range(TINY.n_codebooks))


def test_resume_takes_up_step_and_state(settings: Settings) -> None:
    first = Trainer(settings)
    first.run()
    second = Trainer(replace(settings, resume=True, steps=6))
    assert second.step == 4 and second.elapsed == first.elapsed
    for key, value in second.model.state_dict().items():
        assert torch.equal(value, first.model.state_dict()[key])
    second.run()
    assert second.step == 6


def test_learning_rate_warms_up_and_ends_at_zero(settings: Settings) -> None:
    trainer = Trainer(replace(settings, steps=1000, warmup=100, lr=1.0))
    rates = []
    for trainer.step in (0, 99, 500, 1000):
        rates.append(trainer._learning_rate())
    assert rates == pytest.approx([0.01, 0.976, 0.5, 0.0], abs=1e-3)


def test_time_bounds_the_run(settings: Settings) -> None:
    trainer = Trainer(replace(settings, steps=0, minutes=1.0))
    trainer.elapsed = 30.0
    assert trainer.progress() == 0.5
    trainer.elapsed = 61.0
    assert trainer.progress() == 1.0


def test_log_lines_tell_losses_and_codes(settings: Settings) -> None:
    Trainer(replace(settings, steps=100, warmup=10)).run()
    (line,) = (Path(settings.out) / "train.log").read_text().splitlines()
    assert line.startswith("step 100 snr ") and " mel " in line and " codes " in line


def test_segmented_models_are_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match="causal and mono"):
        Trainer(replace(settings, config="encodec_48khz"))


def test_every_setting_is_an_option() -> None:
    parsed = parse_settings(
        Settings, None, ["--audio", "a", "--out", "b", "--plain-steps", "7", "--resume"]
    )
    assert parsed == Settings(audio="a", out="b", plain_steps=7, resume=True)
