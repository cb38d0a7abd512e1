"""When an accelerated model runs natively, follows the original, or falls back to it.

The codec is transformers', of any supported version.
"""

from __future__ import annotations

import copy
import gc
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
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


def test_models_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = small_model("24khz")
        expected = model.encoder(noise(1, 1, 9000))
    ef.accelerate(model, quiet=True)
    with torch.inference_mode():
        found = model.encoder(noise(1, 1, 9000))
        assert snr(expected.clone(), found.clone()) > 90
        assert "AcceleratedEncoder" in repr(model)
        model.load_state_dict(small_model("24khz", seed=5).state_dict())


def test_shallow_copies_are_modules_of_their_own() -> None:
    model = ef.accelerate(small_model("24khz"), quiet=True)
    x = noise(1, 1, 9000)
    with torch.no_grad():
        expected = model.encoder(x)
        twin = copy.copy(model.encoder)
        assert torch.equal(twin(x), expected)
        del twin
        gc.collect()
        assert torch.equal(model.encoder(x), expected)


def test_layers_added_to_a_container_are_noticed() -> None:
    original, model = small_model("24khz"), ef.accelerate(small_model("24khz"), quiet=True)
    x = noise(1, 1, 9000)
    with torch.no_grad():
        model.encoder(x)
        for m in (original, model):
            m.encoder.layers.append(torch.nn.ELU())
        with pytest.warns(UserWarning, match="ends with an activation"):
            assert snr(original.encoder(x), model.encoder(x)) > 90


def test_threads_share_one_reading() -> None:
    model = ef.accelerate(small_model("24khz"), quiet=True)
    part, x = model.encoder.native_part, noise(1, 1, 9000)
    built: list[int] = []
    build = part.build
    part.build = lambda module: (built.append(1), build(module))[1]

    def run(_: int) -> Tensor:
        with torch.no_grad():
            return model.encoder(x)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(16)))
    assert len(built) == 1
    assert all(torch.equal(result, results[0]) for result in results)


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


def test_other_devices_run_in_pytorch() -> None:
    model = ef.accelerate(small_model("24khz"), quiet=True).to("meta")
    codes = torch.zeros(2, 1, 5, dtype=torch.int64, device="meta")
    with pytest.warns(UserWarning, match="on meta"):
        assert model.quantizer.decode(codes).device.type == "meta"


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


def test_meaningless_samples_do_not_crash() -> None:
    model = ef.accelerate(small_model("24khz"), quiet=True)
    with torch.no_grad():
        for value in (float("nan"), float("inf"), 3e38):
            codes = model.encode(torch.full((1, 1, 5000), value)).audio_codes
            assert codes.min() >= 0 and codes.max() < 64
    with pytest.raises(IndexError, match="out of range"):  # as PyTorch says it
        model.decode(torch.full((1, 1, 2, 5), 64), [None])
    for dtype in (torch.int16, torch.uint8, torch.complex64):  # PCM that nobody scaled, say
        with pytest.raises(RuntimeError, match="type"):
            model.encoder(torch.zeros(1, 1, 9000, dtype=dtype))


def test_unsupported_models_say_which_part() -> None:
    for changes, what in (
        ({"use_causal_conv": False, "num_residual_layers": 2}, "dilation"),
        ({"trim_right_ratio": 0.5}, "trim_right_ratio"),
        ({"pad_mode": "replicate"}, "pad_mode"),
    ):
        model = small_model("24khz", **changes)
        with pytest.warns(UserWarning, match=what):
            assert ef.accelerate(model, quiet=True) is model
        assert "Accelerated" not in repr(model)
    model = small_model("24khz")
    model.encoder.layers[2] = torch.nn.Tanh()
    with pytest.warns(UserWarning, match=r"layer 2 \(Tanh\)"):
        ef.accelerate(model, quiet=True)


def test_what_is_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="found Linear"):
        ef.accelerate(torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="PyTorch model"):
        ef.accelerate(3)
    with pytest.raises(ValueError, match="threads"):
        ef.accelerate(small_model("24khz"), threads=0)
    model = ef.accelerate(small_model("24khz"))
    assert "transformers EncodecModel runs on the native core" in capsys.readouterr().err
    assert "AcceleratedEncoder" in repr(model)


def test_codecs_inside_larger_models(capsys: pytest.CaptureFixture[str]) -> None:
    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.audio_encoder = small_model("24khz")
            self.twice = self.audio_encoder
            self.codec_model = small_model("48khz")

    holder = ef.accelerate(Holder())
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert "audio_encoder (transformers EncodecModel)" in said
    assert "codec_model (transformers EncodecModel)" in said
    ef.restore(holder)
    assert "Accelerated" not in repr(holder)

    class Plain:
        def __init__(self) -> None:
            self.compression_model = small_model("24khz")
            self.name = "not a module"

    plain = ef.accelerate(Plain(), quiet=True)
    assert "AcceleratedEncoder" in repr(plain.compression_model)


def test_numpy_stays_where_it_was() -> None:
    """The result owns its memory: nothing native is freed under it."""
    model = ef.accelerate(small_model("24khz"), quiet=True)
    with torch.no_grad():
        latents = model.encoder(noise(1, 1, 9000))
    kept = latents.clone()
    del model
    assert np.array_equal(latents.numpy(), kept.numpy())
