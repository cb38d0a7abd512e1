"""What stands in for one module of another package's model: when it may, and with what.

A part belongs to its module (as `module.native_part`), is built from it on first use and again
when the module has changed, and is copied and pickled with it, without what is native.
"""

from __future__ import annotations

import itertools
import random
import threading
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from encodec_fast import _native
from encodec_fast.integrations import on_device
from encodec_fast.integrations.network import Network
from encodec_fast.integrations.on_device import DeviceCodebooks, DeviceNetwork
from encodec_fast.integrations.seanet import Classes, UnsupportedError, read_graph
from encodec_fast.integrations.watch import Watch, has_hooks

Native = TypeVar("Native")

# Custom operators take numbers and tensors: this is how they find a part's module.
MODULES: weakref.WeakValueDictionary[int, nn.Module] = weakref.WeakValueDictionary()
# Not from 1: a number that another process has kept must not be anyone's here.
_HANDLES = itertools.count(random.SystemRandom().getrandbits(60))


class _Read(NamedTuple):
    """What was built from a module, where its weights are, and whether they are as they were."""

    watch: Watch | None
    native: Any
    device: torch.device | None


_NOTHING = _Read(None, None, None)


class Part(ABC, Generic[Native]):
    """threads: how many groups of a batch run at once, None: as many as PyTorch uses."""

    def __init__(self, threads: int | None) -> None:
        self._threads = threads
        self._warned: set[str] = set()
        self._start()

    def _start(self) -> None:
        self.handle = next(_HANDLES)
        self._lock = threading.Lock()
        self._read = _NOTHING

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"], state["_read"], state["handle"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def threads(self) -> int:
        """Threads for the next call."""
        return torch.get_num_threads() if self._threads is None else self._threads

    def native(self, module: nn.Module, device: torch.device) -> Native | None:
        """What stands in for `module` as it is now, for input on `device`; None where nothing can,
        with one warning, and where its weights are elsewhere, which PyTorch refuses."""
        if _is_capturing(device):  # in a compiled caller: others were asked before
            self.warn(module, _CAPTURED)
            return None
        read = self._current(module)
        native: Native | None = read.native
        return native if read.device == device else None

    def _current(self, module: nn.Module) -> _Read:
        """What was built from `module` as it is now."""
        read = self._read
        if read.watch is not None and read.watch.unchanged():
            return read
        with self._lock:
            read = self._read
            if read.watch is not None and read.watch.unchanged():  # another thread was here before
                return read
            native, device = None, None
            try:
                device = self._check(module)
                native = self.build(module, device)
            except UnsupportedError as error:
                self.warn(module, str(error))
            # Hooks that are there now would not be seen to go.
            watch = None if has_hooks(module) else Watch(module, self.tensors)
            self._read = _Read(watch, native, device)
            return self._read

    def wants_gradients(self, module: nn.Module) -> bool:
        """Whether a weight of `module` as it is now wants a gradient."""
        watch = self._current(module).watch
        if watch is None:
            return any(parameter.requires_grad for parameter in module.parameters())
        return watch.wants_gradients()

    def _check(self, module: nn.Module) -> torch.device:
        """The device of its weights. Raises UnsupportedError."""
        if has_hooks(module):
            raise UnsupportedError("hooks on the modules in it would not be called")
        for name, part in module.named_modules():
            if "forward" in vars(part):
                raise UnsupportedError(f"{name or 'it'} has a forward of its own")
        devices = set()
        for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
            if not tensor.is_floating_point():
                continue
            devices.add(tensor.device)
            if tensor.dtype != torch.float32 or tensor.device.type not in DEVICES:
                raise UnsupportedError(f"{name} is {tensor.dtype} on {tensor.device.type}")
        if len(devices) != 1:
            found = ", ".join(sorted(map(str, devices)))
            raise UnsupportedError(f"its weights are on several devices or none ({found})")
        return devices.pop()

    def forget(self) -> None:
        """Build anew on next use. Training writes weights in ways that no watch sees."""
        self._read = _NOTHING

    def accepts(self, module: nn.Module, x: Tensor) -> bool:
        """Whether this may stand in for one call on `x` (a tensor of the right form); if not, there
        is one warning for each reason."""
        reason = None
        if module.training:
            self.forget()
            reason = "it is in training mode (call eval())"
        elif x.requires_grad and torch.is_grad_enabled() and x.is_floating_point():
            reason = "its input wants a gradient"
        elif x.device.type not in DEVICES or (x.is_floating_point() and x.dtype != torch.float32):
            reason = f"its input is {x.dtype} on {x.device.type}"
        elif getattr(module, "_is_replica", False):
            reason = "it is a replica of DataParallel"  # which is found by its original's number
        elif torch.is_autocast_enabled(x.device.type):
            reason = "autocast is on"
        elif torch._C._get_tracing_state() is not None or _is_exporting():
            reason = "it is being traced"  # the number of a part means nothing elsewhere
        elif not torch.compiler.is_compiling() and _is_capturing(x.device):
            reason = _CAPTURED
        elif not torch.compiler.is_compiling() and _is_transformed():
            reason = "a transform of torch.func or forward-mode differentiation is at work"
        elif not torch.compiler.is_compiling() and _has_global_hooks():
            reason = "hooks on all modules would not be called"
        if reason is not None and not torch.compiler.is_compiling():
            self.warn(module, reason)
        return reason is None

    def warn(self, module: nn.Module, reason: str) -> None:
        """One warning for each reason."""
        if reason not in self._warned:
            self._warned.add(reason)
            name = type(module).__name__.removeprefix("Accelerated")
            warnings.warn(
                f"encodec_fast does not stand in for {name}: {reason}; PyTorch runs it",
                stacklevel=2,
            )

    @abstractmethod
    def build(self, module: nn.Module, device: torch.device) -> Native:
        """Read the module's weights, which are on `device`. Raises UnsupportedError for a module
        that it cannot be."""

    @abstractmethod
    def tensors(self, module: nn.Module) -> Iterable[str]:
        """The names of a module's own parameters and buffers that `build` reads."""


DEVICES = ("cpu", "cuda")
# Weights may have to be read, for which the host waits.
_CAPTURED = "a CUDA graph is being captured"


def _is_exporting() -> bool:
    """Whether torch.export is at work; older versions of PyTorch do not tell."""
    return bool(getattr(torch.compiler, "is_exporting", bool)())


def _has_global_hooks() -> bool:
    every = nn.modules.module
    return bool(every._global_forward_hooks or every._global_forward_pre_hooks)


def _is_capturing(device: torch.device) -> bool:
    return device.type == "cuda" and on_device.is_capturing(device)


def _is_transformed() -> bool:
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


class NetworkPart(Part[Network | DeviceNetwork]):
    """An encoder or decoder: a sequence of `layers` with `channels` in its input.

    out_channels, up, down: of the graph, known without weights.
    """

    def __init__(
        self, module: nn.Module, layers: str, channels: int, classes: Classes, threads: int | None
    ) -> None:
        super().__init__(threads)
        self._layers, self._channels, self._classes = layers, channels, classes
        graph = self._graph(module)
        self.channels, self.out_channels = channels, graph.out_channels
        self.up, self.down = graph.up, graph.down

    def _graph(self, module: nn.Module) -> _native.Graph:
        return read_graph(getattr(module, self._layers), self._channels, self._classes)

    def build(self, module: nn.Module, device: torch.device) -> Network | DeviceNetwork:
        graph = self._graph(module)
        return Network(graph) if device.type == "cpu" else DeviceNetwork(graph, device)

    def tensors(self, module: nn.Module) -> Iterable[str]:
        return [name for name, parameter in module._parameters.items() if parameter is not None]


class CodebooksPart(Part[_native.Codebooks | DeviceCodebooks]):
    """A residual vector quantiser: each codebook is a buffer `embed` [size, dimension] of a module
    in it, all of whose modules are of the classes `parts`.

    dimension: of an entry; size: of a codebook; n_q: how many there are.
    """

    def __init__(
        self, module: nn.Module, parts: tuple[type[nn.Module], ...], threads: int | None
    ) -> None:
        super().__init__(threads)
        self._parts = parts
        self.n_q, self.size, self.dimension = self._entries(module).shape

    def _entries(self, module: nn.Module) -> Tensor:
        for name, part in module.named_modules():
            if name and type(part) not in self._parts:
                raise UnsupportedError(f"{name} is a {type(part).__name__}")
        found = [
            embed
            for part in module.modules()
            for name, embed in part._buffers.items()
            if name == "embed" and embed is not None
        ]
        if not found or len({embed.shape for embed in found}) > 1 or found[0].dim() != 2:
            raise UnsupportedError("expected codebooks of one shape [size, dimension]")
        return torch.stack(found)

    def build(self, module: nn.Module, device: torch.device) -> _native.Codebooks | DeviceCodebooks:
        entries = np.ascontiguousarray(self._entries(module).cpu().numpy())
        if entries.shape != (self.n_q, self.size, self.dimension):
            raise UnsupportedError("its codebooks have another shape than before")
        if not np.isfinite(entries).all():
            raise UnsupportedError("its codebooks are not finite")
        codebooks = _native.Codebooks(entries)
        return codebooks if device.type == "cpu" else DeviceCodebooks(codebooks, device)

    def tensors(self, module: nn.Module) -> Iterable[str]:
        return ["embed"] if module._buffers.get("embed") is not None else []
