"""transformers' models on the native core: what a caller sees stays what it was.

Runs with transformers 4.40 too, whose 48 kHz models want input that the processor has padded.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the test extra")

import torch
import transformers
from integrations.small_models import noise, small_model, snr
from torch import Tensor

import encodec_fast as ef

OLD = int(transformers.__version__.split(".")[0]) < 5


@pytest.fixture(params=["24khz", "48khz"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Any]]:
    """(original, accelerated)."""
    original, model = small_model(request.param), small_model(request.param)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "encodec_fast")
        yield original, ef.accelerate(model, quiet=True)


def processed(model: Any, lengths: list[int]) -> Any:
    """What the processor makes of recordings of these lengths."""
    config = model.config
    processor = transformers.EncodecFeatureExtractor(
        feature_size=config.audio_channels,
        sampling_rate=config.sampling_rate,
        chunk_length_s=config.chunk_length_s,
        overlap=config.overlap,
    )
    audio = [noise(1, config.audio_channels, n, seed=n)[0].numpy() for n in lengths]
    raw = [a[0] if len(a) == 1 else a for a in audio]
    return processor(raw_audio=raw, sampling_rate=config.sampling_rate, return_tensors="pt")


def check_same(a: Any, b: Any) -> None:
    """Outputs of both models: same class and fields, same codes but for near-ties, same sound."""
    assert type(a) is type(b)
    assert list(a.keys()) == list(b.keys())
    for name in a:
        x, y = a[name], b[name]
        if name == "audio_codes":
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            assert (x == y).float().mean() >= 0.999
            assert len(x.unique()) > 30  # codes that vary
        elif name == "audio_values":
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            assert snr(x, y) > 90
        elif name == "audio_scales":
            assert [s is None for s in x] == [s is None for s in y]
            for s, t in zip(x, y, strict=True):
                assert s is None or torch.equal(s, t)
        else:
            assert x == y


@pytest.mark.parametrize("lengths", [[24000], [48011, 30007, 7]], ids=["single", "batch"])
def test_the_documented_example(pair: tuple[Any, Any], lengths: list[int]) -> None:
    original, model = pair
    if OLD and len(lengths) > 1 and model.config.audio_channels == 2:
        pytest.skip("transformers 4.40 cannot encode a batch of stereo at all")
    inputs = processed(model, lengths)
    for bandwidth in [None, *model.config.target_bandwidths]:
        a, b = (
            m.encode(inputs["input_values"], inputs["padding_mask"], bandwidth)
            for m in (original, model)
        )
        check_same(a, b)
    padding = {k: v for k, v in a.items() if k == "last_frame_pad_length"}
    mask = inputs["padding_mask"]
    a, b = (m.decode(a.audio_codes, a.audio_scales, mask, **padding) for m in (original, model))
    check_same(a, b)
    a, b = (m(inputs["input_values"], mask) for m in (original, model))
    assert (a.audio_codes == b.audio_codes).float().mean() >= 0.999


@pytest.mark.skipif(OLD, reason="transformers 4.40 refuses them at 48 kHz")
@pytest.mark.parametrize("samples", [1, 7, 79, 1283, 48000, 48001, 96480])
def test_any_length_without_the_processor(pair: tuple[Any, Any], samples: int) -> None:
    original, model = pair
    x = noise(3, model.config.audio_channels, samples)
    with torch.no_grad():
        a, b = original.encode(x, bandwidth=7.2), model.encode(x, bandwidth=7.2)
        assert (a.audio_codes != b.audio_codes).sum() <= max(1, a.audio_codes.numel() // 1000)
        a, b = (
            m.decode(a.audio_codes, a.audio_scales, None, True, a.last_frame_pad_length)
            for m in (original, model)
        )
        assert a.audio_values.shape == b.audio_values.shape
        assert snr(a.audio_values, b.audio_values) > 90


def test_tuples(pair: tuple[Any, Any]) -> None:
    original, model = pair
    inputs = processed(model, [24000])
    for m in pair:
        out = m.encode(inputs["input_values"], inputs["padding_mask"], return_dict=False)
        assert type(out) is tuple
    assert len(out) == len(
        original.encode(inputs["input_values"], inputs["padding_mask"], return_dict=False)
    )


def test_errors_stay_those_of_transformers(pair: tuple[Any, Any]) -> None:
    for m in pair:
        with pytest.raises(ValueError, match="bandwidth"):
            m.encode(noise(1, m.config.audio_channels, 24000), bandwidth=5.0)
        with pytest.raises(RuntimeError, match=r"channels|[Pp]adding"):
            m.encoder(noise(1, m.config.audio_channels + 2, 100))


def test_the_parts_alone(pair: tuple[Any, Any]) -> None:
    """As Bark does: codes through the quantiser, its latents through the decoder."""
    original, model = pair
    with torch.no_grad():
        latents = original.encoder(noise(2, model.config.audio_channels, 9000))
        assert snr(latents, model.encoder(noise(2, model.config.audio_channels, 9000))) > 90
        codes = model.quantizer.encode(latents, 7.2)
        assert (codes == original.quantizer.encode(latents, 7.2)).float().mean() > 0.999
        assert torch.equal(original.quantizer.decode(codes), model.quantizer.decode(codes))
        assert snr(original.decoder(latents), model.decoder(latents)) > 90


def test_threads_and_batches_give_the_same_bits(pair: tuple[Any, Any]) -> None:
    _, model = pair
    x = noise(19, model.config.audio_channels, 9001)
    with torch.no_grad():
        alone = torch.cat([model.encoder(item[None]) for item in x])
        assert torch.equal(alone, model.encoder(x))
        ef.accelerate(model, threads=3, quiet=True)
        assert torch.equal(alone, model.encoder(x))


def test_state_and_copies(pair: tuple[Any, Any], tmp_path: Any) -> None:
    original, model = pair
    state = model.state_dict()
    assert state.keys() == original.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in original.state_dict().items())
    x = noise(1, model.config.audio_channels, 24000)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        expected = model.encoder(x)
        model.encoder.layers[0].conv.bias.add_(1.0)  # the copy has weights of its own
        assert torch.equal(twin.encoder(x), expected)
        assert not torch.equal(model.encoder(x), expected)
    twin.save_pretrained(tmp_path)
    loaded = transformers.EncodecModel.from_pretrained(tmp_path).eval()
    assert type(loaded.encoder) is type(original.encoder)
    with torch.no_grad():
        assert snr(loaded.encoder(x), expected) > 90


def test_restore(pair: tuple[Any, Any]) -> None:
    original, model = pair
    assert ef.restore(model) is model
    assert repr(model) == repr(original)
    assert type(model.encoder) is type(original.encoder)
    assert [vars(m).keys() for m in model.modules()] == [vars(m).keys() for m in original.modules()]
    x = noise(1, model.config.audio_channels, 9000)
    with torch.no_grad():
        assert torch.equal(model.encoder(x), original.encoder(x))
    assert ef.restore(model) is model


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
    with pytest.raises(ValueError, match="codes"):
        model.decode(torch.full((1, 1, 2, 5), 64), [None])


@pytest.mark.skipif(OLD, reason="transformers 4.40 refuses the unpadded items at 48 kHz")
@pytest.mark.parametrize("rate", ["24khz", "48khz"])
def test_exact_lengths(rate: str) -> None:
    model = ef.accelerate(small_model(rate), exact_lengths=True, quiet=True)
    lengths = [100001, 30007, 96000]
    inputs = processed(model, lengths)
    with torch.no_grad():
        out = model.encode(inputs["input_values"], inputs["padding_mask"], 7.2)
        rows = model.encode(inputs["input_values"], inputs["padding_mask"], 7.2, return_dict=False)
        assert torch.equal(rows[0], out.audio_codes) and rows[2] == out.last_frame_pad_length
        for item, n in enumerate(lengths):
            alone = model.encode(inputs["input_values"][item : item + 1, :, :n], None, 7.2)
            chunks, _, _, frames = alone.audio_codes.shape
            assert torch.equal(out.audio_codes[:chunks, item, :, :frames], alone.audio_codes[:, 0])
            assert out.audio_codes[chunks:, item].sum() == 0
            for chunk in range(len(out.audio_scales)):
                scale = out.audio_scales[chunk]
                assert (scale is None) == (rate == "24khz")
                if scale is not None:
                    expected = alone.audio_scales[chunk][0] if chunk < chunks else torch.zeros(1)
                    assert torch.equal(scale[item], expected)
        audio = model.decode(
            out.audio_codes, out.audio_scales, last_frame_pad_length=out.last_frame_pad_length
        ).audio_values
        assert audio.shape[-1] >= max(lengths)
        with pytest.raises(ValueError, match="side by side"):
            model.encode(inputs["input_values"], inputs["padding_mask"] * 0)
    assert type(ef.restore(model)) is transformers.EncodecModel


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
