"""Tensors that say they are on a GPU, for accelerated models on the emulated device, whose memory
is the host's: PyTorch without CUDA hands every operation on them to the tensor within.

They have no gradients: PyTorch asks CUDA about those.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from encodec_fast import _cuda
from encodec_fast.integrations import on_device, operators

GPU = torch.device("cuda:0")
# PyTorch's operations are done in the order of the default stream, as on a GPU.
finish = ctypes.CDLL(_cuda.__file__).ef_emulated_finish
OPERATORS = {
    "rvq_encode": operators.rvq_encode,
    "rvq_decode": operators.rvq_decode,
    "run_network": operators.run_network,
    "search_codebooks": operators.search_codebooks,
    "look_up_codes": operators.look_up_codes,
}


class FakeGpuTensor(Tensor):
    """`inner`, a tensor in the host's memory, on a GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device = GPU) -> FakeGpuTensor:
        made: FakeGpuTensor = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=device
        )
        made.inner = inner
        return made

    def __del__(self, finish: Any = finish) -> None:
        finish()  # PyTorch, too, gives no memory away that its stream still uses

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    # What Python's side of PyTorch asks CUDA about.

    def contiguous(self, *_: Any) -> FakeGpuTensor:
        finish()
        inner = self.inner.contiguous()
        return self if inner is self.inner else FakeGpuTensor(inner, self.device)

    def __getitem__(self, index: Any) -> FakeGpuTensor:
        finish()
        return FakeGpuTensor(self.inner[index], self.device)

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        inside = [arg for arg in args if isinstance(arg, FakeGpuTensor)]
        where = inside[0].device if inside else GPU
        if function.namespace == "encodec_fast":  # whose device the caller has found already
            kernel: Callable[..., Any] = OPERATORS[function._opname]._backend_fns["cuda"]
            return kernel(*args)
        options = dict(kwargs or {})
        moved = options.pop("device", where)
        finish()
        within = tree_map(lambda x: x.inner if isinstance(x, FakeGpuTensor) else x, args)
        out = function(*within, **options)
        if torch.device(moved).type == "cpu":
            return out.clone() if out is within[0] else out
        return tree_map(lambda x: cls(x, where) if isinstance(x, Tensor) else x, out)


def to_gpu(module: torch.nn.Module, device: torch.device = GPU) -> Any:
    """The module, its weights on a fake GPU, as `module.to(device)` leaves them."""
    for part in module.modules():
        for owner in (part._parameters, part._buffers):
            for name, tensor in owner.items():
                if tensor is not None:
                    fake = FakeGpuTensor(tensor.detach().clone(), device)
                    is_parameter = owner is part._parameters
                    owner[name] = torch.nn.Parameter(fake, False) if is_parameter else fake
    return module


@contextlib.contextmanager
def fake_gpu(capturing: bool = False) -> Iterator[None]:
    """PyTorch's part of a GPU: the default stream."""

    @contextlib.contextmanager
    def default_stream(device: torch.device) -> Iterator[int]:
        yield 0

    before = on_device.current_stream, on_device.is_capturing
    on_device.current_stream = default_stream
    on_device.is_capturing = lambda device: capturing
    try:
        yield
    finally:
        on_device.current_stream, on_device.is_capturing = before
