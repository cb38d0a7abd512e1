"""The classes that an accelerated model's modules are given, in front of their own.

They hold no state but the part: a module's weights, names and children stay what they were.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from encodec_fast.integrations import operators
from encodec_fast.integrations.parts import MODULES, CodebooksPart, NetworkPart, Part
from encodec_fast.integrations.seanet import Classes, UnsupportedError

if TYPE_CHECKING:

    class Base(nn.Module):
        """What the packages' classes have, as far as it is used here."""

        layers: nn.ModuleList

        def __setstate__(self, state: dict[str, Any]) -> None: ...
        def decode(self, codes: Tensor) -> Tensor: ...

else:
    Base = object  # in front of the module's own class, which has nn.Module behind it


class Stand(NamedTuple):
    """A module, the class that is to stand in front of its own, and its part."""

    module: nn.Module
    accelerated: type[nn.Module]
    part: Part[Any]

    def install(self) -> None:
        """Give the module its new class and its part."""
        module: Any = self.module
        module.__class__ = self.accelerated
        module.native_part = self.part
        MODULES[self.part.handle] = module


class Kinds(NamedTuple):
    """What a package's file knows: its classes of layers, where a network keeps them, which classes
    stand in for its networks and its quantiser, and what else is in a quantiser."""

    classes: Classes
    layers: str
    encoder: type[nn.Module]
    decoder: type[nn.Module]
    quantizer: type[nn.Module]
    codebook_parts: tuple[type[nn.Module], ...]

    def stands(
        self,
        encoder: tuple[nn.Module, int],
        decoder: tuple[nn.Module, int],
        quantizer: nn.Module,
        threads: int | None,
    ) -> list[Stand]:
        """For a codec's networks, each with the channels of its input, and its quantiser. Raises
        UnsupportedError."""
        found = []
        for (module, channels), ours in ((encoder, self.encoder), (decoder, self.decoder)):
            _check_class(module, ours)
            network = NetworkPart(module, self.layers, channels, self.classes, threads)
            found.append(Stand(module, ours, network))
        _check_class(quantizer, self.quantizer)
        codebooks = CodebooksPart(quantizer, self.codebook_parts, threads)
        return [*found, Stand(quantizer, self.quantizer, codebooks)]

    def reference_stands(self, model: Any, threads: int | None) -> list[Stand]:
        """For a codec with the attributes of encodec's, which audiocraft's has too. Raises
        UnsupportedError."""
        encoder = (model.encoder, model.encoder.channels)
        decoder = (model.decoder, model.decoder.dimension)
        return self.stands(encoder, decoder, model.quantizer.vq, threads)


def _check_class(module: nn.Module, accelerated: type[nn.Module]) -> None:
    original = accelerated.__bases__[-1]
    if type(module) is not original:
        raise UnsupportedError(f"expected a {original.__name__}, found a {type(module).__name__}")


def uninstall(module: Any) -> None:
    """Give an accelerated module its own class back."""
    module.__class__ = next(c for c in type(module).__mro__ if not issubclass(c, Accelerated))
    del module.native_part


class Accelerated(Base):
    """What all of them share. `native_part` is kept among the module's plain attributes."""

    native_part: Part[Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy, or one from another process, is a module of its own."""
        super().__setstate__(state)
        self.native_part = copy.copy(self.native_part)
        MODULES[self.native_part.handle] = self

    def train(self, mode: bool = True) -> Any:
        """As nn.Module.train. Training writes weights in ways that nobody can see, so that they are
        read anew after it."""
        if mode or self.training:
            self.native_part.forget()
        return super().train(mode)


class AcceleratedNetwork(Accelerated):
    """An encoder or decoder."""

    native_part: NetworkPart

    def forward(self, x: Tensor) -> Tensor:
        part = self.native_part
        # Anything else is the package's to refuse.
        usual = x.is_floating_point() and x.dim() == 3 and x.shape[1] == part.channels
        if not usual or x.numel() == 0 or not part.accepts(self, x):
            return self.original_forward(x)
        if torch.is_grad_enabled():
            if torch.compiler.is_compiling():
                if any(parameter.requires_grad for parameter in self.parameters()):
                    return self.original_forward(x)
            elif part.wants_gradients(self):
                if part.native(self, x.device) is None:
                    return self.original_forward(x)
                weights = [p for p in self.parameters() if p.requires_grad]
                apply: Any = _Recomputed.apply  # PyTorch has no types here
                out: Tensor = apply(self, x, *weights)
                return out
        return self.run(x)

    def run(self, x: Tensor) -> Tensor:
        """On the native core."""
        part = self.native_part
        shape = (part.out_channels, part.up, part.down)
        out: Tensor = operators.run_network(x, part.handle, *shape)
        return out

    def original_forward(self, x: Tensor) -> Tensor:
        """In PyTorch."""
        out: Tensor = super().forward(x)
        return out


class _Recomputed(torch.autograd.Function):
    """The native forward for callers that might want gradients of the weights: most examples call
    models in eval mode without no_grad. PyTorch's forward is run when a gradient is asked for."""

    @staticmethod
    def forward(ctx: Any, module: AcceleratedNetwork, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.module = module
        ctx.save_for_backward(x, *weights)  # an error if they are overwritten meanwhile
        return module.run(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        with torch.enable_grad():
            out = ctx.module.original_forward(x)
        found = torch.autograd.grad(out, weights, gradient, allow_unused=True)
        return None, None, *found


class AcceleratedCodebooks(Accelerated):
    """A residual vector quantiser, whose package's class has `encode` and `decode` and a codebook's
    for each of its `layers`."""

    native_part: CodebooksPart

    def search(self, x: Tensor, n_q: int) -> Tensor:
        """Latents [batch, dimension, frames] to codes int64 [n_q, batch, frames]."""
        part = self.native_part
        usual = x.is_floating_point() and x.dim() == 3 and x.shape[1] == part.dimension
        if (
            not usual
            or x.numel() == 0
            or not 1 <= n_q <= part.n_q
            or not part.accepts(self, x.detach())
        ):
            return self.original_encode(x, n_q)
        codes: Tensor = operators.search_codebooks(x.detach(), part.handle, n_q)
        return codes

    def look_up(self, codes: Tensor) -> Tensor:
        """Codes integer [1..n_q, batch, frames] to latents [batch, dimension, frames]."""
        part = self.native_part
        usual = codes.dim() == 3 and codes.numel() > 0 and codes.dtype == torch.int64
        if not usual or len(codes) > part.n_q or not part.accepts(self, codes):
            return self.original_decode(codes)
        latents: Tensor = operators.look_up_codes(codes, part.handle, part.dimension)
        return latents

    def original_encode(self, x: Tensor, n_q: int) -> Tensor:
        """In PyTorch: what the packages' `encode` do once they know the number of codebooks."""
        codes: list[Tensor] = []
        layers: list[Any] = list(self.layers)
        for layer in layers[:n_q]:
            codes.append(layer.encode(x))
            x = x - layer.decode(codes[-1])
        return torch.stack(codes)

    def original_decode(self, codes: Tensor) -> Tensor:
        """In PyTorch."""
        return super().decode(codes)


class AcceleratedVq(AcceleratedCodebooks):
    """The ResidualVectorQuantization of encodec and of audiocraft."""

    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        """As theirs."""
        return self.search(x, n_q or len(self.layers))

    def decode(self, q_indices: Tensor) -> Tensor:
        """As theirs."""
        return self.look_up(q_indices)
