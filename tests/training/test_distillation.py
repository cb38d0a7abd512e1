"""Distillation from small speech encoders with random weights, saved as the released ones are."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from encodec_fast.models.config import CONFIGS
from encodec_fast.models.rvq import ResidualVectorQuantizer
from encodec_fast.training.distillation import Distillation, DistillationSettings, first_latents
from encodec_fast.training.resampling import resample

CONFIG = replace(CONFIGS["encodec_24khz"], dimension=16, codebook_size=32)
WIDTH = 24
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_buckets": 16,
}


def save(folder: Path, kind: str, normalise: bool, **more: Any) -> str:
    torch.manual_seed(4)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **more})
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("hubert"), "Hubert", True)


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("wavlm"), "WavLM", False)


def distillation(model: str, **settings: Any) -> Distillation:
    torch.manual_seed(5)
    return Distillation(DistillationSettings(model=model, **settings), CONFIG)


def recordings(count: int, seconds: float = 0.5, channels: int = 1) -> torch.Tensor:
    torch.manual_seed(6)
    length = round(seconds * CONFIG.sample_rate)
    return 0.1 * torch.randn(count, channels, length).cumsum(dim=-1) / 20


def by_hand(model: str, x: torch.Tensor, normalise: bool, layer: int | None) -> np.ndarray:
    """The targets [F, width] of one recording [C, T]: each frame's span is looked at in 600 places,
    a common multiple of 320 / 16000 and 320 / 24000 s."""
    wave = resample(x.mean(dim=0)[None], CONFIG.sample_rate, 16000)[0].numpy()
    if normalise:
        wave = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    frames = -(-x.shape[1] // 320)
    rows = -(-frames * 320 * 50 // 24000)
    padded = np.zeros(40 + rows * 320 + 40, dtype=np.float32)
    padded[40 : 40 + len(wave)] = wave
    teacher = transformers.AutoModel.from_pretrained(model).eval()
    with torch.no_grad():
        hidden = teacher(torch.from_numpy(padded)[None], output_hidden_states=True).hidden_states
    assert hidden[0].shape == (1, rows, WIDTH)
    held = np.mean([h[0].numpy() for h in hidden], axis=0)
    if layer is not None:
        held = hidden[layer][0].numpy()
    targets = []
    for frame in range(frames):
        moments = (frame + (np.arange(600) + 0.5) / 600) / 75
        targets.append(np.mean([held[int(moment * 50)] for moment in moments], axis=0))
    return np.array(targets)


@pytest.mark.parametrize("layer", [None, 0, 2])
@pytest.mark.parametrize("kind", ["hubert", "wavlm"])
def test_targets(kind: str, layer: int | None, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    for x in (recordings(1, 0.5)[0], recordings(1, 0.1111, 2)[0]):
        found = distillation(model, layer=layer).targets(x[None])[0]
        expected = by_hand(model, x, kind == "hubert", layer)
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)


@pytest.mark.parametrize("sample_rate, ratios", [(24000, (8, 5, 4, 2)), (48000, (8, 5, 4, 2, 4))])
def test_a_sound_is_where_the_codec_has_it(
    tmp_path: Path, sample_rate: int, ratios: tuple[int, ...]
) -> None:
    """Frames shorter and longer than the encoder's, which has no view of the whole here."""
    model = save(tmp_path, "WavLM", False, feat_extract_norm="layer", num_conv_pos_embeddings=1)
    config = replace(CONFIG, sample_rate=sample_rate, ratios=ratios)
    part = Distillation(DistillationSettings(model=model, layer=0), config)
    torch.manual_seed(7)
    silence = 1e-3 * torch.randn(1, 1, 30 * config.hop)
    plain = part.targets(silence)
    assert plain.shape == (1, 30, WIDTH)
    for frame in (0, 7, 16, 29):
        changed = silence.clone()
        span = slice(frame * config.hop, (frame + 1) * config.hop)
        changed[..., span] += torch.randn(config.hop)
        difference = (part.targets(changed) - plain).norm(dim=2)[0]
        assert abs(difference.argmax().item() - frame) <= 1
        # Up to the encoder's hop and half its window to either side, 32.5 ms.
        reach = int(np.ceil(0.0325 * sample_rate / config.hop))
        near = difference[max(0, frame - reach) : frame + reach + 1]
        assert near.sum() > 0.98 * difference.sum()


def test_the_loss_is_the_published_one(hubert: str) -> None:
    part = distillation(hubert)
    x, latents = recordings(2), torch.randn(2, 16, 38)
    weight, bias = (value.detach().numpy() for value in part.projection.parameters())
    targets, terms = part.targets(x).numpy(), []
    for item in range(2):
        projected = latents[item].numpy().T @ weight.T + bias
        for d in range(WIDTH):
            one, other = projected[:, d], targets[item, :, d]
            cosine = one @ other / np.sqrt((one @ one) * (other @ other))
            terms.append(-np.log(1 / (1 + np.exp(-cosine))))
    assert part(latents, x).item() == pytest.approx(np.mean(terms), rel=1e-5)


def test_it_can_be_learned_and_the_encoder_stays(hubert: str) -> None:
    part = distillation(hubert).train()
    teacher = part._teacher[0]
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    x = recordings(2)
    latents = torch.randn(2, 16, 38, requires_grad=True)
    optimizer = torch.optim.Adam([latents, *part.parameters()], lr=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = part(latents, x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.6 and losses[-1] < 0.36  # the least is 0.3133
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
    assert list(part.state_dict()) == ["projection.weight", "projection.bias"]
    other = distillation(hubert)
    other.load_state_dict(part.state_dict())
    assert other(latents, x).item() == part(latents, x).item()


@pytest.mark.parametrize("kind", ["hubert", "wavlm"])
def test_recordings_of_a_batch_do_not_meet(kind: str, request: pytest.FixtureRequest) -> None:
    part = distillation(request.getfixturevalue(kind))
    x, latents = recordings(3), torch.randn(3, 16, 38)
    alone = torch.cat([part.targets(x[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(part.targets(x), alone, atol=1e-5, rtol=1e-5)
    losses = [part(latents[i : i + 1], x[i : i + 1]).item() for i in range(3)]
    assert part(latents, x).item() == pytest.approx(np.mean(losses), rel=1e-5)


def test_only_some_kinds_are_distilled(hubert: str) -> None:
    part = distillation(hubert, kinds=("speech", "singing"))
    x, latents = recordings(3), torch.randn(3, 16, 38, requires_grad=True)
    loss = part(latents, x, ["music", "singing", "speech"])
    assert loss.item() == pytest.approx(part(latents[1:], x[1:]).item(), rel=1e-5)
    loss.backward()
    assert latents.grad is not None
    assert latents.grad[0].count_nonzero() == 0 and latents.grad[1:].count_nonzero() > 0
    part.zero_grad()
    none = part(latents, x, ["music"] * 3)
    none.backward()
    gradient = part.projection.weight.grad
    assert none.item() == 0 and gradient is not None and gradient.count_nonzero() == 0


def test_the_encoder_is_exact_in_mixed_precision(hubert: str) -> None:
    part, x = distillation(hubert), recordings(1)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = part.targets(x)
        loss = part(torch.randn(1, 16, 38), x)
    assert torch.equal(mixed, part.targets(x)) and loss.dtype == torch.float32


def test_latents_of_the_first_codebooks() -> None:
    torch.manual_seed(8)
    quantizer = ResidualVectorQuantizer(CONFIG)
    for layer in quantizer.layers:
        layer.codebook.embed.normal_()
    z = torch.randn(2, 16, 5, requires_grad=True)
    codes = quantizer.encode(z.detach(), 4)
    found = first_latents(z, codes, quantizer, 2)
    expected = sum(quantizer.codebook(k).embed[codes[k]] for k in range(2)).transpose(1, 2)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(z)
    (found * weights).sum().backward()
    assert z.grad is not None and torch.equal(z.grad, weights)


def test_models_that_are_none(tmp_path: Path, hubert: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"model: .*missing: no such folder"):
        distillation(str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match=r"has no preprocessor_config\.json"):
        distillation(str(tmp_path))
    extractor = Path(hubert, "preprocessor_config.json")
    (tmp_path / extractor.name).write_bytes(extractor.read_bytes())
    with pytest.raises((ValueError, OSError), match=f"model: {tmp_path}: not "):
        distillation(str(tmp_path))
    config = transformers.BertConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=1
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected an encoder of waveforms, as HuBERT, found Bert"):
        distillation(str(tmp_path))


def test_damaged_models(tmp_path: Path) -> None:
    save(tmp_path, "Hubert", True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"lacks \d+ of the model's weights \(encoder.layers.2"):
        distillation(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config))
    distillation(str(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="not a readable model"):
        distillation(str(tmp_path))


def test_without_transformers(hubert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="model: distillation needs the package transformers"):
        distillation(hubert)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"layer": -1}, "layer: expected at least 0, or none, found -1"),
        ({"weight": 0.0}, "weight: expected above 0"),
        ({"weight": float("nan")}, "weight: expected above 0"),
        ({"codebooks": 0}, "codebooks: expected at least 1"),
        ({"kinds": ()}, "kinds: expected at least one"),
        ({"model": ""}, "model: expected a folder or a name"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistillationSettings(**settings)


def test_settings_must_fit_the_models(hubert: str) -> None:
    with pytest.raises(ValueError, match="layer: expected at most 2, found 3"):
        distillation(hubert, layer=3)
    with pytest.raises(ValueError, match="codebooks: expected at most the codec's"):
        distillation(hubert, codebooks=100)
    with pytest.raises(ValueError, match="model: expected a folder or a name, found none"):
        Distillation(DistillationSettings(), CONFIG)
    with pytest.raises(ValueError, match=r"latents: expected shape \[1, 16, 38\]"):
        distillation(hubert)(torch.zeros(1, 16, 37), recordings(1))
