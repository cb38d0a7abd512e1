"""What the codec's settings do: each changes what is learnt, wrong ones are named at the start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from codec_runs import TINY, noise_batch, tiny_settings
from torch import Tensor

from encodec_fast.models.checkpoints import load_checkpoint
from encodec_fast.models.config import CONFIGS
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.export import export_model
from encodec_fast.training.codec_settings import CodecSettings, QuantizerSettings
from encodec_fast.training.codec_trainer import CodecTrainer
from encodec_fast.training.configuration import load_settings
from encodec_fast.training.distillation import DistillationSettings
from encodec_fast.training.generator import Generator, start_from

QUANTIZED = QuantizerSettings(kmeans_iterations=2)


def learnt(settings: CodecSettings) -> dict[str, Tensor]:
    """The weights after three steps, all with the codebooks."""
    trainer = CodecTrainer(settings)
    for seed in range(3):
        trainer.train_step(noise_batch(settings, seed))
    return trainer.model.state_dict()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("usual")
    return folder, learnt(tiny_settings(folder, quantizer=QUANTIZED))


def test_equal_settings_learn_the_same(usual: tuple[Path, dict[str, Tensor]]) -> None:
    folder, weights = usual
    again = learnt(tiny_settings(folder, quantizer=QUANTIZED))
    assert all(torch.equal(again[key], value) for key, value in weights.items())


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("losses", {"commitment": 0.0}),
        ("losses", {"mel_floor": 1e-2}),
        ("losses", {"mel": "paper"}),
        ("losses", {"relative_features": False}),
        ("losses", {"balancer_decay": 0.1}),
        ("optimizer", {"lr": 1e-4}),
        ("optimizer", {"clip": 0.5}),
        ("optimizer", {"betas": (0.9, 0.9)}),
        ("optimizer", {"warmup": 10}),
        ("optimizer", {"schedule": "cosine"}),
        ("quantizer", {"decay": 0.5}),
        ("quantizer", {"kmeans_iterations": 7}),
        ("quantizer", {"initial_batches": 3}),
        ("quantizer", {"reference": True}),
        ("quantizer", {"weights": {"0.3": 1.0}}),
        ("adversary", {"lr": 1e-2}),
        ("adversary", {"update_probability": 0.0}),
        ("adversary", {"crops": 1}),
        ("adversary", {"preset": "paper"}),
    ],
)
def test_each_setting_changes_what_is_learnt(
    usual: tuple[Path, dict[str, Tensor]], part: str, changes: dict[str, Any]
) -> None:
    folder, weights = usual
    settings = tiny_settings(folder, quantizer=QUANTIZED)
    changed = replace(getattr(settings, part), **changes)
    other = learnt(replace(settings, **{part: changed}))
    assert any(not torch.equal(other[key], value) for key, value in weights.items())


def test_the_generators_loss_has_two_forms(tmp_path: Path) -> None:
    """Alike but for 1 while all logits are below 1, as at the start: so are their gradients."""
    found = {}
    for form in ("hinge", "mean"):
        settings = tiny_settings(tmp_path, quantizer=QUANTIZED)
        settings = replace(settings, losses=replace(settings.losses, generator=form))
        report = CodecTrainer(settings).train_step(noise_batch(settings))
        found[form] = report.losses["adversarial"]
    assert found["hinge"] == pytest.approx(1 + found["mean"], rel=1e-5)


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    settings = tiny_settings(tmp_path, quantizer=QUANTIZED)
    clipped = replace(settings, optimizer=replace(settings.optimizer, clip=0.25))
    trainer = CodecTrainer(clipped)
    report = trainer.train_step(noise_batch(clipped))
    assert report.losses["gradient"] > 1
    gradients = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
    assert torch.stack(gradients).norm().item() == pytest.approx(0.25, rel=1e-3)


def test_the_commitment_adds_its_gradient(tmp_path: Path) -> None:
    """Beside the balancer: twice the weight is twice the gradient beyond that of no weight."""

    def gradients(weight: float) -> list[Tensor]:
        settings = tiny_settings(tmp_path, quantizer=QUANTIZED)
        settings = replace(settings, losses=replace(settings.losses, commitment=weight))
        trainer = CodecTrainer(settings)
        trainer.train_step(noise_batch(settings))
        return [p.grad.clone() for p in trainer.model.encoder.parameters() if p.grad is not None]

    none, one, two = gradients(0.0), gradients(50.0), gradients(100.0)
    for a, b, c in zip(none, one, two, strict=True):
        torch.testing.assert_close(c - a, 2 * (b - a), rtol=1e-2, atol=1e-3)
    assert any((b - a).abs().max() > 1e-2 for a, b in zip(none, one, strict=True))


def test_a_normalised_model_is_given_its_level_back() -> None:
    config = replace(TINY, normalize=True)
    torch.manual_seed(2)
    generator = Generator(EncodecModel(config).eval(), None, False)
    x = 0.1 * torch.randn(2, 1, 4 * config.hop)
    quiet, loud = generator(x, None, ["speech"] * 2), generator(8 * x, None, ["speech"] * 2)
    torch.testing.assert_close(loud.waves, 8 * quiet.waves, rtol=1e-3, atol=1e-5)


def test_distillation_joins_the_training(tmp_path: Path) -> None:
    from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

    torch.manual_seed(3)
    shape = HubertConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        conv_dim=(4, 4),
        conv_stride=(5, 64),
        conv_kernel=(10, 64),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    HubertModel(shape).save_pretrained(tmp_path / "teacher")
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path / "teacher")
    distilled = DistillationSettings(model=str(tmp_path / "teacher"), weight=2.0)
    settings = tiny_settings(tmp_path, quantizer=QUANTIZED, distillation=distilled)
    trainer = CodecTrainer(settings)
    assert trainer.generator.distillation is not None
    before = trainer.generator.distillation.projection.weight.clone()
    report = trainer.train_step(noise_batch(settings))
    assert 0.3 < report.losses["distillation"] < 1.4
    assert not torch.equal(trainer.generator.distillation.projection.weight, before)
    trainer.save()
    resumed = CodecTrainer(replace(settings, resume=True))
    assert resumed.generator.distillation is not None
    ours, theirs = resumed.generator.distillation, trainer.generator.distillation
    assert torch.equal(ours.projection.weight, theirs.projection.weight)
    none = replace(settings, resume=True, distillation=DistillationSettings())
    with pytest.raises(ValueError, match=r"teacher: expected None, found 8"):
        CodecTrainer(none)


def test_a_run_may_start_from_a_model(tmp_path: Path) -> None:
    torch.manual_seed(4)
    model = EncodecModel(TINY)
    export_model(model, tmp_path / "tiny.safetensors")
    other = EncodecModel(TINY)
    start_from(other, str(tmp_path / "tiny.safetensors"))
    x = 0.1 * torch.randn(1, 1, 5 * TINY.hop)
    torch.testing.assert_close(other.encoder(x), model.encoder(x), rtol=1e-4, atol=1e-5)
    settings = tiny_settings(tmp_path)
    CodecTrainer(settings).save()
    again = EncodecModel(TINY)
    start_from(again, str(Path(settings.out) / "last.pt"))
    saved = load_checkpoint(Path(settings.out) / "last.pt").state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in again.state_dict().items())
    with pytest.raises(ValueError, match="tiny"):
        start_from(EncodecModel(replace(TINY, n_filters=4)), str(tmp_path / "tiny.safetensors"))
    wide = EncodecModel(replace(TINY, n_filters=4))
    with pytest.raises(ValueError, match="other layers"):
        start_from(wide, str(Path(settings.out) / "last.pt"))


def test_a_mono_model_becomes_a_stereo_one(tmp_path: Path) -> None:
    torch.manual_seed(5)
    mono = EncodecModel(TINY).eval()
    with torch.no_grad():
        mono.decoder.layers[-1].conv.bias.fill_(0.1)  # type: ignore[union-attr]  # a Conv1d of ours
    export_model(mono, tmp_path / "tiny.safetensors")
    stereo = EncodecModel(replace(TINY, channels=2)).eval()
    start_from(stereo, str(tmp_path / "tiny.safetensors"))
    x = 0.1 * torch.randn(1, 1, 5 * TINY.hop)
    with torch.no_grad():
        found, expected = stereo.decoder(stereo.encoder(x.repeat(1, 2, 1))), mono(x)
        unquantised = mono.decoder(mono.encoder(x))
    assert found.shape == (1, 2, x.shape[-1]) and expected.shape == x.shape
    for channel in found[0]:  # but for the little that lets the channels part
        assert (channel - unquantised[0, 0]).norm() < 0.5 * unquantised.norm()
    assert not torch.equal(found[0, 0], found[0, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"weights": {"adversarial": 1.0}}}, "l1, snr or mel"),
        ({"losses": {"weights": {"mle": 1.0}}}, "'mle'"),
        ({"losses": {"weights": {"mel": float("inf")}}}, "weights.mel"),
        ({"losses": {"commitment": float("inf")}}, "commitment"),
        ({"losses": {"balancer_decay": 1.0}}, "balancer_decay"),
        ({"losses": {"mel": "none"}}, "paper, audiocraft"),
        ({"adversary": {"preset": "big"}}, "preset"),
        ({"quantizer": {"draw": "none"}}, "draw"),
        ({"quantizer": {"weights": {"7": 1.0}}}, "kbps of 0.3, 0.6"),
        ({"quantizer": {"weights": {"0.3": 0.0}}}, "some above 0"),
        ({"quantizer": {"weights": {"0.3": 1.0}, "draw": "any"}}, "with draw weights"),
        ({"validation": {"bandwidth": 7.0}}, "not supported"),
        ({"validation": {"clips": 0}}, "clips"),
        ({"architecture": {"name": "a/b"}}, "not a model name"),
        ({"architecture": {"causal": False}}, "architecture.segment"),
        ({"architecture": {"segment": 1.0}}, "architecture.segment"),
        ({"architecture": {"normalize": True}}, "architecture.normalize"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path, changes: dict[str, dict[str, object]], message: str
) -> None:
    settings = tiny_settings(tmp_path)
    with pytest.raises(ValueError, match=message):
        ((name, values),) = changes.items()
        replace(settings, **{name: replace(getattr(settings, name), **values)})


def test_crops_too_short_for_their_losses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"seconds: expected at least 0\.085"):
        tiny_settings(tmp_path, seconds=0.05)


@pytest.mark.parametrize("name", ["encodec_24khz", "encodec_48khz", "nano_24khz", "stereo_48khz"])
def test_our_configurations_are_valid(name: str, tmp_path: Path) -> None:
    settings = load_settings(CodecSettings, name, [f"out={tmp_path}", "audio=there"])
    assert settings.config == CONFIGS[name]
    assert settings.placed_data.train[0].path == "there"
