"""When an accelerated model runs natively, follows the original, or falls back to it.

The codec is transformers', of any supported version.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest

pytest.importorskip("transformers", reason="needs the test extra")

import torch
from integrations.small_models import noise, small_model, snr
from torch import Tensor

import encodec_fast as ef


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.encoder.layers[0].conv.bias.add_(1.0),
        lambda m: m.encoder.layers[13].lstm.weight_hh_l0.mul_(0.5),
        lambda m: setattr(m.encoder.layers[3].conv, "bias", torch.nn.Parameter(torch.ones(16))),
        lambda m: setattr(m.encoder.layers[0].conv.bias, "data", torch.ones(8)),
        lambda m: m.load_state_dict(small_model("24khz", seed=5).state_dict()),
        lambda m: setattr(m.encoder, "layers", small_model("24khz", seed=5).encoder.layers),
    ],
    ids=["in place", "lstm", "parameter", "data", "load_state_dict", "layers"],
)
def test_changed_weights_are_noticed(change: Any) -> None:
    original, model = small_model("24khz"), ef.accelerate(small_model("24khz"), quiet=True)
    x = noise(1, 1, 9000)
    with torch.no_grad():
        before = model.encoder(x)
        change(original)
        change(model)
        after = model.encoder(x)
        assert not torch.equal(before, after)
        assert snr(original.encoder(x), after) > 90


def test_changed_codebooks_are_noticed() -> None:
    original, model = small_model("24khz"), ef.accelerate(small_model("24khz"), quiet=True)
    latents = torch.randn(1, 32, 50)
    model.quantizer.encode(latents)
    for m in (original, model):
        m.quantizer.layers[0].codebook.embed.copy_(m.quantizer.layers[1].codebook.embed * 2)
    assert torch.equal(original.quantizer.encode(latents), model.quantizer.encode(latents))


def test_training_writes_are_noticed() -> None:
    """A moving average writes through .data, which PyTorch does not count; eval mode sees it."""
    original, model = small_model("24khz"), ef.accelerate(small_model("24khz"), quiet=True)
    x = noise(1, 1, 9000)
    model.encode(x)
    for m in (original, model):
        m.train()
    with pytest.warns(UserWarning, match="training mode"):
        assert model.encoder(x).requires_grad
    for m in (original, model):
        m.encoder.layers[0].conv.bias.data.add_(0.5)
        m.eval()
    with torch.no_grad():
        assert snr(original.encoder(x), model.encoder(x)) > 90


def warned(model: Any, x: Tensor) -> tuple[Tensor, list[str]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        out = model.encoder(x)
        model.encoder(x)
    return out, [str(w.message) for w in found if "encodec_fast" in str(w.message)]


def test_falls_back_with_one_warning() -> None:
    x = noise(1, 1, 9000)
    expected = small_model("24khz").encoder(x)

    model = ef.accelerate(small_model("24khz"), quiet=True)
    assert snr(expected, model.encoder(x)) > 90

    leaf = x.clone().requires_grad_()
    out, said = warned(model, leaf)
    assert snr(expected, out) > 90
    assert len(said) == 1 and "gradient" in said[0]
    out.sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().sum() > 0

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        _, said = warned(model, x)
    assert len(said) == 1 and "autocast" in said[0]

    handle = model.encoder.layers[3].register_forward_hook(lambda *_: calls.append(1))
    calls: list[int] = []
    with torch.no_grad():
        out, said = warned(model, x)
        assert len(calls) == 2 and len(said) == 1 and "hooks" in said[0]
        assert snr(expected, out) > 90
        handle.remove()
        calls.clear()
        out, said = warned(model, x)
    assert not calls and not said and snr(expected, out) > 90

    model.double()
    with torch.no_grad():
        out, said = warned(model, x.double())
    assert out.dtype == torch.float64 and len(said) == 1 and "float64" in said[0]
    model.float()
    with torch.no_grad():
        out, said = warned(model, x)
    assert not said and snr(expected, out) > 90

    model.bfloat16()
    with torch.no_grad():
        out, said = warned(model, x.bfloat16())
    assert out.dtype == torch.bfloat16 and len(said) == 1


def test_patched_layers_run() -> None:
    model = small_model("24khz")
    layer = model.encoder.layers[0]
    original = layer.forward
    layer.forward = lambda x: original(x) * 0
    x = noise(1, 1, 9000)
    with pytest.warns(UserWarning, match=r"layers\.0 has a forward of its own"), torch.no_grad():
        expected = model.encoder(x)
        assert snr(expected, small_model("24khz").encoder(x)) < 40
        assert snr(expected, ef.accelerate(model, quiet=True).encoder(x)) > 90


def test_layers_added_to_a_container_are_noticed() -> None:
    original, model = small_model("24khz"), ef.accelerate(small_model("24khz"), quiet=True)
    x = noise(1, 1, 9000)
    with torch.no_grad():
        model.encoder(x)
        for m in (original, model):
            m.encoder.layers.append(torch.nn.ELU())
        with pytest.warns(UserWarning, match="ends with an activation"):
            assert snr(original.encoder(x), model.encoder(x)) > 90


def test_parametrisations_added_later_are_noticed() -> None:
    class Half(torch.nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight * 0.5

    if not hasattr(small_model("24khz").encoder.layers[0].conv, "parametrizations"):
        pytest.skip("this transformers has the old weight norm")
    original, model = small_model("24khz"), ef.accelerate(small_model("24khz"), quiet=True)
    x = noise(1, 1, 9000)
    with torch.no_grad():
        model.encoder(x)
        for m in (original, model):
            conv = m.encoder.layers[0].conv
            torch.nn.utils.parametrize.register_parametrization(conv, "weight", Half(), unsafe=True)
        assert snr(original.encoder(x), model.encoder(x)) > 90


def test_hooks_on_all_modules_are_called() -> None:
    model = ef.accelerate(small_model("24khz"), quiet=True)
    calls: list[int] = []
    every = torch.nn.modules.module
    handle = every.register_module_forward_hook(lambda *_: calls.append(1))
    try:
        with pytest.warns(UserWarning, match="hooks on all modules"), torch.no_grad():
            model.encoder(noise(1, 1, 9000))
    finally:
        handle.remove()
    assert len(calls) > 20


def test_function_transforms_run_in_pytorch() -> None:
    original, model = small_model("24khz"), ef.accelerate(small_model("24khz"), quiet=True)
    x = noise(1, 1, 2000)
    state = dict(model.encoder.named_parameters())

    def loss(state: Any, m: Any) -> Tensor:
        return torch.func.functional_call(m.encoder, state, (x,)).pow(2).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = torch.func.grad(loss)(state, model)
        expected = torch.func.grad(loss)(dict(original.encoder.named_parameters()), original)
        for name, value in expected.items():
            assert snr(value, found[name]) > 60
        # PyTorch's LSTM has no forward mode: it says so instead of losing the tangent.
        with pytest.raises(NotImplementedError, match="forward AD"):
            torch.func.jvp(model.encoder, (x,), (x,))


def test_exported_programs_hold_pytorchs_operations() -> None:
    """The number of a part means nothing in another process."""

    class Decode(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantizer = ef.accelerate(small_model("24khz"), quiet=True).quantizer

        def forward(self, codes: Tensor) -> Tensor:
            return self.quantizer.decode(codes)

    with torch.no_grad():
        exported = torch.export.export(Decode().eval(), (torch.zeros(2, 1, 5, dtype=torch.int64),))
    assert "encodec_fast" not in str(exported.graph)
    assert "embedding" in str(exported.graph)


def test_gradients_of_weights_in_eval_mode() -> None:
    """Nobody needs no_grad around the documented example, and whoever wants gradients has them."""
    original, model = small_model("24khz"), ef.accelerate(small_model("24khz"), quiet=True)
    for m in (original, model):
        codes = m.encode(noise(1, 1, 9000)).audio_codes
        m.decode(codes, [None])[0].pow(2).sum().backward()
    for (name, a), b in zip(original.named_parameters(), model.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(
                a.grad, b.grad, rtol=1e-3, atol=1e-4 * float(a.grad.abs().max())
            )
    out = model.decode(codes, [None])[0]
    with torch.no_grad():
        model.decoder.layers[0].conv.bias.add_(1.0)
    with pytest.raises(RuntimeError, match="modified"):
        out.sum().backward()


def test_compiled_callers() -> None:
    """torch.compile goes through the operators: one graph, the same codes."""
    model = ef.accelerate(small_model("24khz"), quiet=True)
    x = noise(2, 1, 9000)

    def caller(x: Tensor) -> Tensor:
        return model.decoder(
            model.quantizer.decode(model.quantizer.encode(model.encoder(x * 2), 7.2))
        )

    with torch.no_grad():
        compiled = torch.compile(caller, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x), caller(x))
        model.encoder.layers[0].conv.bias.add_(1.0)
        assert torch.equal(compiled(x), caller(x))
        out = torch.compile(lambda x: model(x).audio_values, backend="aot_eager")(x)
        assert torch.equal(out, model(x).audio_values)
