"""What `accelerate` takes, finds and refuses; copies, threads and values without meaning.

The codec is transformers', of any supported version.
"""

from __future__ import annotations

import copy
import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the test extra")

import torch
from integrations.small_models import noise, small_model, snr
from torch import Tensor

import encodec_fast as ef


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


def test_threads_share_one_reading() -> None:
    model = ef.accelerate(small_model("24khz"), quiet=True)
    part, x = model.encoder.native_part, noise(1, 1, 9000)
    built: list[int] = []
    build = part.build
    part.build = lambda *given: (built.append(1), build(*given))[1]

    def run(_: int) -> Tensor:
        with torch.no_grad():
            return model.encoder(x)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(run, range(16)))
    assert len(built) == 1
    assert all(torch.equal(result, results[0]) for result in results)


def test_other_devices_run_in_pytorch() -> None:
    model = ef.accelerate(small_model("24khz"), quiet=True).to("meta")
    codes = torch.zeros(2, 1, 5, dtype=torch.int64, device="meta")
    with pytest.warns(UserWarning, match="on meta"):
        assert model.quantizer.decode(codes).device.type == "meta"


def test_replicas_run_in_pytorch() -> None:
    """nn.DataParallel's: the number of a part leads to the module that was copied."""
    model = ef.accelerate(small_model("24khz"), quiet=True)
    x = noise(1, 1, 3000)
    with torch.no_grad():
        expected = small_model("24khz").encoder(x)
        replica = model.encoder._replicate_for_data_parallel()
        with pytest.warns(UserWarning, match="a replica of DataParallel"):
            assert torch.equal(replica(x), expected)


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
