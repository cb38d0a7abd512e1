"""Accelerated models whose weights are on cuda:0: results of the CPU, bit for bit, and what PyTorch
runs as before. A script: see agreement_on_device.py; the emulated device has on_fake_gpu's tensors.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from integrations.small_models import noise, small_model
from torch import Tensor

import encodec_fast as ef
from encodec_fast import _cuda, _native
from encodec_fast.integrations import on_device

EMULATED = _cuda.device_info(0)[0] == "emulated"
if EMULATED:
    from on_fake_gpu import FakeGpuTensor as on_gpu
    from on_fake_gpu import fake_gpu, to_gpu
else:
    from contextlib import nullcontext as fake_gpu

    def on_gpu(tensor: Tensor, device: Any = "cuda:0") -> Any:
        return tensor.to(device)

    def to_gpu(module: Any, device: Any = "cuda:0") -> Any:
        return module.to(device)


GPU = torch.device("cuda:0")


def models(make: Callable[[], Any]) -> tuple[Any, Any]:
    """Accelerated on the CPU, and on the GPU."""
    return ef.accelerate(make(), quiet=True), ef.accelerate(to_gpu(make()), quiet=True)


def check_parts(cpu: Any, gpu: Any, x: Tensor, n_q: Any) -> None:
    """Encoder, quantiser, decoder, and back."""
    latents, found = cpu.encoder(x), gpu.encoder(on_gpu(x))
    assert found.device == GPU and torch.equal(latents, found.cpu())
    codes, found = cpu.quantizer.encode(latents, *n_q), gpu.quantizer.encode(found, *n_q)
    assert found.device == GPU and found.dtype == torch.int64 and torch.equal(codes, found.cpu())
    assert x.shape[2] < 5000 or len(codes.unique()) > 20
    back, found = cpu.quantizer.decode(codes), gpu.quantizer.decode(found)
    assert torch.equal(back, found.cpu())
    assert torch.equal(cpu.decoder(back), gpu.decoder(found).cpu())


def check_transformers(rate: str) -> None:
    cpu, gpu = models(lambda: small_model(rate))
    channels = cpu.config.audio_channels
    for batch, samples in ((1, 9000), (3, 1283), (3, 1283), (1, 7)):
        check_parts(cpu, gpu, noise(batch, channels, samples), (7.2,))
    x = noise(2, channels, 9000)
    strided = on_gpu(x.transpose(0, 2).contiguous()).transpose(0, 2)
    assert torch.equal(cpu.encoder(x), gpu.encoder(strided).cpu())
    before = on_device.block_frames
    on_device.block_frames = lambda *_: 7  # so that this is many blocks
    try:
        check_parts(cpu, gpu, x, (7.2,))
    finally:
        on_device.block_frames = before
    moved = ef.accelerate(small_model(rate), quiet=True)  # and moved behind its back
    moved.encoder(x)
    to_gpu(moved)
    check_parts(cpu, moved, x, (7.2,))


def check_encodec(rate: str) -> None:
    """PyTorch's old weight norm is computed on the CPU, too."""
    try:
        from integrations.test_encodec_package import small_model as make
    except (ImportError, pytest.skip.Exception):  # the package is not here
        return
    cpu, gpu = models(lambda: make(rate))
    n_q = len(cpu.quantizer.vq.layers)
    x = noise(2, cpu.channels, 3001)
    latents, found = cpu.encoder(x), gpu.encoder(on_gpu(x))
    assert torch.equal(latents, found.cpu())
    codes, found = cpu.quantizer.vq.encode(latents, n_q), gpu.quantizer.vq.encode(found, n_q)
    assert torch.equal(codes, found.cpu())
    ef.restore(cpu)
    ef.restore(gpu)


@contextmanager
def left_to_pytorch(module: Any, reason: str) -> Iterator[None]:
    """Within, PyTorch runs the module, with one warning that has the reason ("": none)."""
    calls = []

    def original(x: Tensor, *_: Any) -> Tensor:
        calls.append(x)
        return x

    module.original_forward = original
    module.native_part._warned.clear()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        yield
    del module.original_forward
    said = [str(w.message) for w in found if "encodec_fast" in str(w.message)]
    assert calls, "it was not PyTorch that ran"
    assert len(said) == (reason != "") and all(reason in line for line in said), said


def check_dispatch() -> None:
    _, gpu = models(lambda: small_model("24khz"))
    encoder = gpu.encoder
    x = noise(1, 1, 2000)
    expected = encoder(on_gpu(x)).cpu()
    for reason, wrong in (
        ("its input is torch.float16 on cuda", on_gpu(x.half())),
        ("its input is torch.float64 on cuda", on_gpu(x.double())),
        ("", x),  # on the CPU: PyTorch's own error
    ):
        with left_to_pytorch(encoder, reason):
            encoder(wrong)
    with left_to_pytorch(encoder, "autocast is on"):
        torch.set_autocast_enabled("cuda", True)  # torch.autocast does it where there is a GPU
        encoder(on_gpu(x))
        torch.set_autocast_enabled("cuda", False)
    with left_to_pytorch(encoder, "a replica of DataParallel"):
        encoder._is_replica = True
        encoder(on_gpu(x))
        del encoder._is_replica
    before = _native.open_cuda, on_device.is_capturing
    try:
        on_device.is_capturing = lambda device: True
        with left_to_pytorch(encoder, "a CUDA graph is being captured"):
            encoder(on_gpu(x))
        on_device.is_capturing = before[1]

        def none(device: str) -> Any:
            raise OSError("device: this build of encodec_fast has no CUDA")

        _native.open_cuda = none
        encoder.native_part.forget()
        with left_to_pytorch(encoder, "has no CUDA"):
            encoder(on_gpu(x))
    finally:
        _native.open_cuda, on_device.is_capturing = before
    encoder.native_part.forget()
    assert torch.equal(encoder(on_gpu(x)).cpu(), expected)
    check_moves(x)


def check_moves(x: Tensor) -> None:
    """Weights that change, move, are in half precision, or on two devices."""
    cpu, gpu = models(lambda: small_model("24khz"))
    gpu.encoder(on_gpu(x))
    for model, place in ((cpu, lambda t: t), (gpu, on_gpu)):
        bias = model.encoder.layers[0].conv.bias.detach().cpu() + 1.0
        model.encoder.layers[0].conv.bias = torch.nn.Parameter(place(bias), False)
    assert torch.equal(cpu.encoder(x), gpu.encoder(on_gpu(x)).cpu())
    conv = gpu.encoder.layers[0].conv
    keep = conv.bias
    conv.bias = torch.nn.Parameter(keep.detach().cpu(), False)
    with left_to_pytorch(gpu.encoder, "on several devices or none (cpu, cuda:0)"):
        gpu.encoder(on_gpu(x))
    conv.bias = torch.nn.Parameter(on_gpu(keep.detach().cpu().half()), False)
    with left_to_pytorch(gpu.encoder, "bias is torch.float16 on cuda"):
        gpu.encoder(on_gpu(x))
    conv.bias = keep
    assert torch.equal(cpu.encoder(x), gpu.encoder(on_gpu(x)).cpu())
    if EMULATED:  # a second GPU, which there is not
        far = torch.device("cuda:1")
        with left_to_pytorch(gpu.encoder, ""):
            gpu.encoder(on_gpu(x, far))
        to_gpu(small_model("24khz"), far)
        other = ef.accelerate(to_gpu(small_model("24khz"), far), quiet=True)
        with left_to_pytorch(other.encoder, "expected cuda:0..cuda:0, found 'cuda:1'"):
            other.encoder(on_gpu(x, far))


def check_refusals() -> None:
    """Codes that no codebook has, and tensors that the operators never see."""
    _, gpu = models(lambda: small_model("24khz"))
    good = torch.zeros(2, 1, 30, dtype=torch.int64)
    expected = gpu.quantizer.decode(on_gpu(good)).cpu()
    for bad in (64, -1, 65535, 65536, 1 << 40, -(1 << 40)):
        codes = good.clone()
        codes[1, 0, 29] = bad
        try:
            gpu.quantizer.decode(on_gpu(codes))
        except ValueError as error:
            assert "codes: expected values below 64" in str(error), error
        else:
            raise AssertionError(f"no error for {bad}")
    assert torch.equal(gpu.quantizer.decode(on_gpu(good)).cpu(), expected)
    network = gpu.encoder.native_part.native(gpu.encoder, GPU)
    books = gpu.quantizer.native_part.native(gpu.quantizer, GPU)
    x, latents = torch.zeros(1, 1, 900), torch.zeros(5, 32)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: network(x), "signals: expected a tensor on cuda:0, found cpu"),
        (lambda: network(on_gpu(x.double())), "signals: expected torch.float32, found torch.fl"),
        (lambda: network(on_gpu(x[0])), "signals: expected shape [any, 1, any], found [1, 900]"),
        (lambda: network(on_gpu(x[..., :0])), "rows: expected 1.."),
        (lambda: books.encode(latents, 1), "latents: expected a tensor on cuda:0, found cpu"),
        (lambda: books.encode(on_gpu(latents[:, 1:].contiguous()), 1), "expected shape [any, 32]"),
        (lambda: books.encode(on_gpu(torch.zeros(32, 5).t()), 1), "expected a contiguous tensor"),
        (lambda: books.encode(on_gpu(latents), 99), "n_q: expected 1..4, found 99"),
        (lambda: books.encode(on_gpu(latents), -1), "n_q: expected 1..4, found -1"),
        (lambda: books.decode(on_gpu(latents)), "codes: expected torch.int64, found torch.float"),
    ]
    for call, message in calls:
        try:
            call()
        except ValueError as error:
            assert message in str(error), f"{error}: expected {message}"
        else:
            raise AssertionError(f"no error: {message}")


def check_operators() -> None:
    """Those for anyone's quantiser; codebooks that change are noticed."""
    rvq_encode, rvq_decode = torch.ops.encodec_fast.rvq_encode, torch.ops.encodec_fast.rvq_decode
    generator = torch.Generator().manual_seed(0)
    books = torch.randn(4, 64, 16, generator=generator)
    latents = torch.randn(3, 50, 16, generator=generator)
    there = on_gpu(books.clone())
    for _ in range(2):
        codes = rvq_encode(on_gpu(latents), there)
        assert codes.device == GPU and torch.equal(codes.cpu(), rvq_encode(latents, books))
        back = rvq_decode(codes[:3].to(torch.int16), there)
        assert torch.equal(back.cpu(), rvq_decode(codes[:3].cpu(), books))
        books[1] *= 2
        there.data.mul_(on_gpu(torch.tensor([1.0, 2.0, 1.0, 1.0])[:, None, None]))
    assert torch.equal(rvq_encode(on_gpu(latents[:0]), there).cpu(), rvq_encode(latents[:0], books))
    for call, message in (
        (lambda: rvq_encode(latents, there), "codebooks: expected them on cpu, found cuda:0"),
        (lambda: rvq_encode(on_gpu(latents), books), "codebooks: expected them on cuda:0, found"),
        (lambda: rvq_decode(on_gpu(codes.cpu() + 64), there), "codes: expected values below 64"),
        (lambda: rvq_encode(on_gpu(latents), on_gpu(books / 0)), "expected finite entries"),
    ):
        try:
            call()
        except ValueError as error:
            assert message in str(error), f"{error}: expected {message}"
        else:
            raise AssertionError(f"no error: {message}")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("equality", "rest"), default=None)
    options = parser.parse_args()
    with fake_gpu():
        if options.only != "rest":
            for rate in ("24khz", "48khz"):
                check_transformers(rate)
                check_encodec(rate)
        if options.only != "equality":
            check_dispatch()
            check_refusals()
            check_operators()
    print("equal")


if __name__ == "__main__":
    main()
