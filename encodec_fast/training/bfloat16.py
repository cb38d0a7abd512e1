"""Whether this machine computes a model's layers right in bfloat16: each one against float32.

oneDNN's kernels for AMX return something else than the convolution for some shapes (in torch 2.13,
16 channels in, a kernel of twice the stride): training then descends on an encoder that no other
machine, and not even validation on this one, computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

WRONG = 0.1  # relative error; bfloat16 itself is at 0.003 for a convolution, 0.006 for an LSTM
_STEPS = 64  # of a layer's output in time
_FEW = 12  # of an LSTM's, and of a two-dimensional convolution's each way
_CONVOLUTION = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
_ARGUMENTS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv1d: (*_CONVOLUTION, "groups"),
    nn.Conv2d: (*_CONVOLUTION, "groups"),
    nn.ConvTranspose1d: (*_CONVOLUTION, "groups", "output_padding"),
    nn.Linear: ("in_features", "out_features"),
    nn.LSTM: ("input_size", "hidden_size", "num_layers"),
    nn.MultiheadAttention: ("embed_dim", "num_heads", "batch_first"),
}


def wrong_layer(modules: Iterable[nn.Module]) -> str | None:
    """The first layer in `modules`, on the CPU, whose output or gradients under bfloat16 autocast
    are off by more than `WRONG` on random input, with its shape and the error; None where all are
    right. Layers of one shape are checked once. The random numbers of the caller stay as they are.
    """
    seen = set()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        for layer in (layer for module in modules for layer in module.modules()):
            kind = next((kind for kind in _ARGUMENTS if isinstance(layer, kind)), None)
            if kind is None:
                continue
            values = [(name, getattr(layer, name)) for name in _ARGUMENTS[kind]]
            if (shape := (kind, *values)) in seen:
                continue
            seen.add(shape)
            x = _input(layer)
            alike = kind(**dict(values))
            exact, reduced = (_results(alike, x, enabled) for enabled in (False, True))
            for name, value in exact.items():
                error = float((value - reduced[name]).norm() / value.norm())
                if not error <= WRONG:  # also what is no number
                    text = f"{kind.__name__}({alike.extra_repr()})"
                    return f"{text} on {list(x.shape)}, {name} off by {error:.2g}"
    return None


def _input(layer: nn.Module) -> Tensor:
    """Random input, float32, in the layout that the models have it in."""
    if isinstance(layer, nn.LSTM):
        return torch.randn(_FEW, 2, layer.input_size)
    if isinstance(layer, nn.MultiheadAttention):
        return torch.randn(2, _STEPS, layer.embed_dim)
    if isinstance(layer, nn.Linear):
        return torch.randn(2, _STEPS, layer.in_features)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d)
    frames = _FEW if isinstance(layer, nn.Conv2d) else _STEPS
    sizes: Sequence[int] = [
        (frames - 1) * stride + (kernel - 1) * dilation + 1
        for stride, kernel, dilation in zip(
            layer.stride, layer.kernel_size, layer.dilation, strict=True
        )
    ]
    x = torch.randn(2, layer.in_channels, *sizes)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _results(layer: nn.Module, x: Tensor, reduced: bool) -> dict[str, Tensor]:
    """Output, and gradients of input and weights, of a random sum of the outputs."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    arguments: tuple[Any, ...] = (x, x, x) if isinstance(layer, nn.MultiheadAttention) else (x,)
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        y = layer(*arguments)
    y = y[0] if isinstance(y, tuple) else y
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    torch.autograd.backward(y, gradient.to(y.dtype))
    found = {"output": y, "gradient of the input": x.grad}
    for name, weight in layer.named_parameters():
        if weight.ndim > 1:
            found[f"gradient of {name}"] = weight.grad
    return {name: value.detach().float() for name, value in found.items()}
