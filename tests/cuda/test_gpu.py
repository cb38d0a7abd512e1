"""On a real GPU: every byte as on the CPU. Skipped without one (test_emulated.py runs the same
scripts on an emulated one)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import encodec_fast as ef
from encodec_fast import _native

HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    """A GPU, or the reason why there is none."""
    try:
        cuda, _ = _native.open_cuda("cuda")
    except OSError as error:
        pytest.skip(str(error))
    if cuda.device_info(0)[0] == "emulated":
        pytest.skip("the device is emulated")


def run(script: str, *options: str) -> str:
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(HERE / script), *options],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("options", [["--models", "4"], ["--wide", "--lanes", "70"]])
def test_random_models(options: list[str]) -> None:
    assert "segments: equal" in run("agreement_on_device.py", *options)


def test_codebooks() -> None:
    assert "equal" in run("codebooks_on_device.py")


def test_products() -> None:
    assert "equal" in run("products_on_device.py")


def test_signals_on_the_device() -> None:
    pytest.importorskip("torch")
    assert "segments: equal" in run("signals_on_device.py")


def test_accelerated_models() -> None:
    """Codes and sound are those of the accelerated model on the CPU."""
    pytest.importorskip("transformers")
    assert "equal" in run("accelerated_on_device.py")


def test_accelerated_models_in_streams_and_compiled_callers() -> None:
    """What PyTorch without CUDA cannot do: the caller's stream, a compiled caller, a capture."""
    pytest.importorskip("transformers")
    import torch
    from integrations.small_models import noise, small_model, snr

    cpu = ef.accelerate(small_model("24khz"), quiet=True)
    gpu = ef.accelerate(small_model("24khz"), quiet=True).to("cuda")
    x = noise(3, 1, 30000)
    side = torch.cuda.Stream()

    def caller(x: torch.Tensor) -> torch.Tensor:
        return gpu.decoder(gpu.quantizer.decode(gpu.quantizer.encode(gpu.encoder(x * 2), 7.2)))

    with torch.no_grad():
        codes = cpu.quantizer.encode(cpu.encoder(x * 2), 7.2)
        expected = cpu.decoder(cpu.quantizer.decode(codes))
        with torch.cuda.stream(side):
            found = caller(x.pin_memory().cuda(non_blocking=True))
        side.synchronize()
        assert torch.equal(found.cpu(), expected)
        compiled = torch.compile(caller, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(x.cuda()).cpu(), expected)
        graph, held = torch.cuda.CUDAGraph(), x.cuda()
        gpu.encoder.original_forward(held)  # as PyTorch asks for, before it captures
        torch.cuda.synchronize()
        warned = pytest.warns(UserWarning, match="a CUDA graph is being captured")
        with warned, torch.cuda.graph(graph):
            out = gpu.encoder(held)
        graph.replay()
        assert snr(cpu.encoder(x), out.cpu()) > 30  # PyTorch's, perhaps in TF32
        assert torch.equal(gpu.encoder(held).cpu(), cpu.encoder(x))


def test_tokenize() -> None:
    pytest.importorskip("soundfile")
    assert "equal" in run("tokenize_on_device.py", "--items", "300")


def test_elements() -> None:
    assert "equal" in run("elements_on_device.py", "--stride", "97")


@pytest.mark.parametrize(
    "options",
    [
        ["--calls", "24"],
        ["--shapes", "odd", "heads of 25", "--lanes", "700", "--calls", "4", "--steps", "90"],
        ["--shapes", "short past", "--lanes", "4096", "--calls", "2", "--steps", "70"],
    ],
)
def test_language_models(options: list[str]) -> None:
    assert "refusals: equal" in run("lm_on_device.py", *options)


def test_rules_of_the_language_models_coder() -> None:
    assert "passed" in run("lm_rules_on_device.py")


@pytest.mark.parametrize("name", ["nano_24khz", "stereo_48khz"])
def test_payloads_of_recordings(name: str) -> None:
    """The bundled models' language models on codes of the test recordings, in key intervals."""
    pytest.importorskip("soundfile")
    from signals import program_material

    codec = ef.Codec.load(name)
    model, device = codec.entropy_model, ef.Codec.load(name, device="cuda").program.device
    assert device is not None
    if model is None or model.lm is None:
        pytest.skip("the model has no language model")
    codes = codec.encode(program_material("test", codec.sample_rate, codec.channels, 31.0)).codes[0]
    parts = [np.ascontiguousarray(codes[:, i : i + 500]) for i in range(0, codes.shape[1], 500)]
    lanes, frames = list(range(len(parts))), [part.shape[1] for part in parts]
    expected = _native.LmCoder(model.lm, len(codes), len(parts)).encode(lanes, parts)
    assert device.new_lm_coder(model.lm, len(codes), len(parts)).encode(lanes, parts) == expected
    found = device.new_lm_coder(model.lm, len(codes), len(parts)).decode(lanes, expected, frames)
    for part, other in zip(parts, found, strict=True):
        assert np.array_equal(part, other)


@pytest.mark.parametrize("name", ["nano_24khz", "stereo_48khz"])
def test_recordings(name: str) -> None:
    """The bundled models on the test recordings, alone and together, both ways, and live."""
    pytest.importorskip("soundfile")
    from signals import program_material, white_noise

    cpu, device = ef.Codec.load(name), ef.Codec.load(name, device="cuda")
    rate, channels = cpu.sample_rate, cpu.channels
    wavs = [program_material("test", rate, channels, seconds) for seconds in (31.0, 12.5, 0.8)]
    wavs.append(white_noise(0, channels, 2 * rate + 1))
    together = device.encode_many(wavs, None)
    for wav, many in zip(wavs, together, strict=True):
        codes = cpu.encode(wav, None)
        assert np.array_equal(device.encode(wav, None).codes[0], codes.codes[0])
        assert np.array_equal(many.codes[0], codes.codes[0])
        assert device.decode(codes).tobytes() == cpu.decode(codes).tobytes()
    live = [codec.stream_encoder(batch=3) for codec in (cpu, device)]
    for start in range(0, 40 * cpu.hop, cpu.hop):
        chunk = np.stack([wavs[0][:, start : start + cpu.hop]] * 3)
        assert np.array_equal(live[0].push(chunk), live[1].push(chunk))
