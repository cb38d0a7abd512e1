"""Whether bfloat16 is computed right: a wrong layer is found, and then float32 trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from codec_runs import tiny_settings
from torch import Tensor, nn
from torch.nn import functional as F

from encodec_fast.models.config import CONFIGS
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.lm import LanguageModel
from encodec_fast.training.bfloat16 import wrong_layer
from encodec_fast.training.codec_trainer import CodecTrainer
from encodec_fast.training.run import Run
from encodec_fast.training.run_settings import RunSettings

# Shapes that are right on every machine known, one of each kind.
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv1d": lambda: nn.Conv1d(3, 5, 4, 2),
    "conv2d": lambda: nn.Conv2d(2, 4, (3, 9), (1, 2), (1, 4)),
    "conv_transpose1d": lambda: nn.ConvTranspose1d(5, 3, 4, 2),
    "linear": lambda: nn.Linear(8, 4),
    "multi_head_attention_forward": lambda: nn.MultiheadAttention(8, 2, batch_first=True),
}


class _HalfTheGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / 2


def break_layer(patch: pytest.MonkeyPatch, name: str, wrong: Callable[[Tensor], Tensor]) -> None:
    """Under autocast the function `name` of torch makes `wrong` of its output."""
    right = getattr(F, name)

    def broken(*arguments: Any, **more: Any) -> Any:
        found = right(*arguments, **more)
        if not torch.is_autocast_enabled("cpu"):
            return found
        return (wrong(found[0]), found[1]) if isinstance(found, tuple) else wrong(found)

    patch.setattr(F, name, broken)


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "output": lambda y: y.roll(1, 1),
    "no number": lambda y: y / 0,
    "gradient": lambda y: _HalfTheGradient.apply(y),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", LAYERS)
def test_a_wrong_layer_is_found(monkeypatch: pytest.MonkeyPatch, name: str, wrong: str) -> None:
    model = nn.Sequential(nn.ELU(), LAYERS[name]())
    assert wrong_layer([model]) is None
    break_layer(monkeypatch, name, WRONG[wrong])
    found = wrong_layer([model])
    assert found is not None and found.startswith(f"{type(model[1]).__name__}(")
    assert ("gradient of the input" if wrong == "gradient" else "output") in found


def test_a_wrong_lstm_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.LSTM(8, 8, 2)
    assert wrong_layer([model]) is None
    forward = nn.LSTM.forward

    def broken(layer: nn.LSTM, x: Tensor) -> Any:
        y, state = forward(layer, x)
        return y * (1.2 if torch.is_autocast_enabled("cpu") else 1), state

    monkeypatch.setattr(nn.LSTM, "forward", broken)
    assert "LSTM(8, 8, num_layers=2)" in str(wrong_layer([model]))


def test_every_shape_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EncodecModel(CONFIGS["nano_24khz"])
    shapes = set()
    for layer in model.modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            kind = isinstance(layer, nn.Conv1d)
            shapes.add((tuple(layer.weight.shape), kind, layer.stride, layer.dilation))
    looked: list[tuple[int, ...]] = []
    for name in ("conv1d", "conv_transpose1d"):
        right = getattr(F, name)

        def counted(x: Tensor, weight: Tensor, *more: Any, right: Any = right) -> Any:
            if torch.is_autocast_enabled("cpu"):
                looked.append(tuple(weight.shape))
            with torch.autocast("cpu", enabled=False):
                return right(x, weight, *more)

        monkeypatch.setattr(F, name, counted)
    state = torch.get_rng_state()
    assert wrong_layer([model, model]) is None
    assert len(looked) == len(shapes) and {shape[0] for shape in shapes} == set(looked)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_trains_in_float32_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tiny_settings(tmp_path, precision="bfloat16", steps=1)
    with monkeypatch.context() as patched:
        break_layer(patched, "conv2d", lambda y: 0 * y)  # of the discriminators
        trainer = CodecTrainer(settings)
    assert trainer.precision == "float32"
    with trainer.autocast():
        assert trainer.model.encoder(torch.randn(1, 1, 3200)).dtype == torch.float32
    trainer.run()
    line = (Path(settings.out) / "train.log").read_text().splitlines()[0]
    assert line.startswith("precision: float32, as bfloat16 is computed wrong here")
    assert "Conv2d(2, 8, kernel_size=(3, 9)" in line
    assert capsys.readouterr().err.count(line) == 1
    # Another machine may resume it in bfloat16.
    assert "precision: bfloat16" in (Path(settings.out) / "settings.yaml").read_text()


def inputs_of(model: nn.Module, run: Callable[[], Any]) -> list[tuple[nn.Module, Tensor]]:
    """The layers of a model with what each is given."""
    found: list[tuple[nn.Module, Tensor]] = []
    kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.LSTM, nn.Linear)
    hooks = [
        layer.register_forward_hook(lambda layer, given, _: found.append((layer, given[0])))
        for layer in model.modules()
        if isinstance(layer, kinds)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", ["nano_24khz", "stereo_48khz"])
def test_all_layers_are_right_in_what_a_run_computes_in(tmp_path: Path, name: str) -> None:
    """On the sizes of training, not those of the check; fails where the check overlooks one."""
    torch.manual_seed(1)
    config = CONFIGS[name]
    model = EncodecModel(config)
    run = Run(RunSettings(out=str(tmp_path), steps=1, batch=1, precision="bfloat16"))
    run.settle_precision(model, language := LanguageModel(config, 72, 3, 5))
    x = 0.1 * torch.randn(2, config.channels, 48 * config.hop)
    codes = torch.randint(0, config.codebook_size, (2, config.n_codebooks, 50))
    with torch.no_grad():
        layers = inputs_of(model, lambda: model.decoder(model.encoder(x)))
        layers += inputs_of(language, lambda: language(codes))
        assert len(layers) > 50
        for layer, given in layers:
            exact = layer(given)
            with run.autocast():
                found = layer(given)
            if isinstance(layer, nn.LSTM):
                exact, found = exact[0], found[0]
            assert (found.float() - exact).norm() < 0.05 * exact.norm(), layer
