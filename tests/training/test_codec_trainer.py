"""The codec's trainer: what a step does, what a run leaves, what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from codec_runs import ALL, TINY, noise_batch, tiny_settings

import encodec_fast
from encodec_fast.models.checkpoints import load_checkpoint
from encodec_fast.models.config import CONFIGS
from encodec_fast.training.averaging import AveragedWeights
from encodec_fast.training.codec_settings import (
    AdversarySettings,
    CodecSettings,
    LossSettings,
    QuantizerSettings,
)
from encodec_fast.training.codec_trainer import CodecTrainer
from encodec_fast.training.configuration import load_settings
from encodec_fast.training.non_finite import NonFiniteLoss
from encodec_fast.training.start import train_codec

SEGMENTED = replace(
    CONFIGS["encodec_48khz"],
    name="tiny_segmented",
    n_filters=2,
    dimension=8,
    codebook_size=16,
    bandwidths=(0.6, 1.2),
)


def test_a_run_leaves_a_model_that_codes(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    path = train_codec(settings)
    codec = encodec_fast.Codec.load(str(path))
    wav = torch.randn(1, 3 * TINY.hop).numpy()
    assert codec.encode(wav, bandwidth=0.6).codes[0].shape == (2, 3)
    model = load_checkpoint(Path(settings.out) / "last.pt")
    assert model.config == TINY
    saved = torch.load(Path(settings.out) / "last.pt", weights_only=True)
    assert saved["step"] == 4
    for key, value in model.state_dict().items():
        assert torch.equal(value, saved["average"][key])
        assert not torch.equal(value, saved["model"][key]) or value.numel() < 20, key
    assert (Path(settings.out) / "best.pt").exists()
    again = load_settings(CodecSettings, Path(settings.out) / "settings.yaml")
    assert again == settings
    lines = (Path(settings.out) / "train.log").read_text().splitlines()
    assert len(lines) == 5 and "valid/mel" in lines[-1]
    for name in (*ALL, "discriminator", "commitment"):
        assert f" {name} " in "".join(lines), name


def test_training_lowers_its_losses(tmp_path: Path) -> None:
    settings = tiny_settings(
        tmp_path,
        steps=60,
        losses=LossSettings(weights={"snr": 1.0, "mel": 1.0}, mel="audiocraft"),
        quantizer=QuantizerSettings(plain_steps=0, kmeans_iterations=5),
        optimizer=replace(tiny_settings(tmp_path).optimizer, lr=5e-3),
    )
    trainer = CodecTrainer(settings)
    batch = noise_batch(settings)
    reports = [trainer.train_step(batch) for _ in range(60)]
    for name in ("snr", "mel"):
        first = sum(report.losses[name] for report in reports[:10])
        last = sum(report.losses[name] for report in reports[-10:])
        assert last < first, name


def test_the_discriminator_is_updated_as_often_as_published(tmp_path: Path) -> None:
    settings = tiny_settings(
        tmp_path,
        adversary=AdversarySettings(preset="small"),
        quantizer=QuantizerSettings(kmeans_iterations=1),
    )
    trainer = CodecTrainer(settings)
    updated = sum(
        trainer._random("adversary").random() < settings.adversary.update_probability
        for trainer.step in range(3000)
    )
    assert updated / 3000 == pytest.approx(2 / 3, abs=0.03)
    trainer.step = 0
    never = replace(settings.adversary, update_probability=0.0)
    trainer.settings = replace(settings, adversary=never)
    adversary = trainer.adversary
    assert adversary is not None
    before = [value.clone() for value in adversary.networks.parameters()]
    report = trainer.train_step(noise_batch(settings))
    assert "discriminator" not in report.losses and "adversarial" in report.losses
    after = list(adversary.networks.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_one_discriminator_per_bandwidth_or_one_for_all(tmp_path: Path) -> None:
    apart = CodecTrainer(tiny_settings(tmp_path)).adversary
    assert apart is not None and sorted(apart.networks) == ["1", "2"]
    before = {name: [p.clone() for p in net.parameters()] for name, net in apart.networks.items()}
    x = 0.1 * torch.randn(2, 1, 4800)
    apart.learn(1, x, 0.5 * x)
    changed = {
        name: not all(
            torch.equal(a, b) for a, b in zip(before[name], network.parameters(), strict=True)
        )
        for name, network in apart.networks.items()
    }
    assert changed == {"1": True, "2": False}
    shared = AdversarySettings(preset="small", per_bandwidth=False)
    together = CodecTrainer(tiny_settings(tmp_path, adversary=shared)).adversary
    assert together is not None and list(together.networks) == ["all"]


def test_the_adversary_begins_at_its_share_and_sees_its_crops(tmp_path: Path) -> None:
    late = AdversarySettings(preset="small", start=0.75, crops=1)
    settings = tiny_settings(
        tmp_path, adversary=late, quantizer=QuantizerSettings(kmeans_iterations=1)
    )
    trainer = CodecTrainer(settings)
    seen: list[int] = []
    assert trainer.adversary is not None
    judge = trainer.adversary.judge

    def counted(n_q: int, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(len(x))
        return judge(n_q, x, y)

    trainer.adversary.judge = counted  # type: ignore[method-assign]  # counts the crops
    reports = [trainer.train_step(noise_batch(settings)) for _ in range(4)]
    assert ["adversarial" in report.losses for report in reports] == [False] * 3 + [True]
    assert seen == [1]


def test_bandwidths_are_drawn_alike_or_by_weight_or_freely(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    trainer = CodecTrainer(settings)

    def shares(quantizer: QuantizerSettings) -> dict[int | None, float]:
        trainer.settings = replace(settings, quantizer=quantizer)
        drawn = [trainer._draw_codebooks() for trainer.step in range(2000)]
        return {n_q: drawn.count(n_q) / 2000 for n_q in set(drawn)}

    assert shares(QuantizerSettings()) == pytest.approx({1: 0.5, 2: 0.5}, abs=0.04)
    weighted = QuantizerSettings(weights={"0.6": 3.0, "0.3": 1.0})
    assert shares(weighted) == pytest.approx({1: 0.25, 2: 0.75}, abs=0.04)
    assert shares(QuantizerSettings(draw="any")) == pytest.approx({1: 0.5, 2: 0.5}, abs=0.04)
    assert shares(QuantizerSettings(plain_steps=500))[None] == 0.25


def test_segmented_normalised_stereo_models_train(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, SEGMENTED, steps=3)
    path = train_codec(settings)
    codec = encodec_fast.Codec.load(str(path))
    assert codec.channels == 2 and codec.sample_rate == 48000


def test_reduced_precision_trains(tmp_path: Path) -> None:
    trainer = CodecTrainer(tiny_settings(tmp_path, precision="bfloat16"))
    reports = [trainer.train_step(noise_batch(trainer.settings)) for _ in range(4)]
    assert all(math.isfinite(value) for report in reports for value in report.losses.values())


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path)
    trainer = CodecTrainer(settings)
    trainer.train_step(noise_batch(settings))
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    batch = noise_batch(settings)
    batch.waves[1, 0, 5] = math.nan
    with pytest.raises(NonFiniteLoss, match="noise1"):
        trainer.train_step(batch)
    assert torch.equal(
        torch.load(Path(settings.out) / "bad_batch0.pt", weights_only=True)["waves"].isnan(),
        batch.waves.isnan(),
    )
    assert trainer.step == 1
    for key, value in trainer.model.state_dict().items():
        if value.is_floating_point() and "quantizer" not in key:
            assert torch.equal(value, before[key]), key


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    CodecTrainer(tiny_settings(tmp_path)).save()
    with pytest.raises(ValueError, match="resume=true"):
        CodecTrainer(tiny_settings(tmp_path))
    other = replace(TINY, n_filters=4)
    with pytest.raises(ValueError, match=r"n_filters: expected 4, found 2"):
        CodecTrainer(tiny_settings(tmp_path, other, resume=True))
    no_adversary = LossSettings(weights={"mel": 1.0})
    with pytest.raises(ValueError, match=r"adversary: expected None, found"):
        CodecTrainer(tiny_settings(tmp_path, losses=no_adversary, resume=True))


def test_average_weights_follow_the_formula() -> None:
    layer = torch.nn.Linear(2, 2)
    average = AveragedWeights(layer, 0.9)
    total, count = torch.zeros(2, 2, dtype=torch.float64), 0.0
    for step in range(1, 6):
        torch.nn.init.normal_(layer.weight)
        average.update(layer, step)
        total, count = 0.9 * total + layer.weight.detach().double(), 0.9 * count + 1
    torch.testing.assert_close(average.state["weight"].double(), total / count)
