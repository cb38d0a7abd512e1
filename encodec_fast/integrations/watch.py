"""Notices that a module's weights, children or hooks have changed, in a few microseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

# Written in inference mode, such a tensor is not counted; all others are at 0 or above.
_UNCOUNTED = -1


class Watch:
    """A module as it was when this was made.

    Seen are replaced parameters, buffers and children, members added to containers, writes that
    PyTorch counts (all in-place operations but those on `.data` and on tensors made in inference
    mode), moved memory, and new hooks on anything but `root` itself, whose hooks PyTorch calls
    whatever its forward does. Not seen are attributes that are none of these.
    """

    def __init__(self, root: nn.Module, tensors: Callable[[nn.Module], Iterable[str]]) -> None:
        """tensors: the names of a module's own parameters and buffers that count."""
        self._children: list[tuple[dict[str, Any], str, nn.Module | None]] = []
        self._tensors: list[tuple[dict[str, Any], str, Tensor, int, int]] = []
        self._without_hooks: list[dict[int, Any]] = []
        self._containers: list[tuple[dict[str, Any], int]] = []
        for module in root.modules():
            children: Any = module._modules
            self._children += [(children, name, child) for name, child in children.items()]
            if isinstance(module, nn.ModuleList | nn.Sequential):
                self._containers.append((children, len(children)))
            for name in tensors(module):
                owner: Any = module._parameters if name in module._parameters else module._buffers
                tensor: Tensor = owner[name]
                version = _UNCOUNTED if tensor.is_inference() else tensor._version
                self._tensors.append((owner, name, tensor, version, tensor.data_ptr()))
            if module is not root:
                hooks = (module._forward_hooks, module._forward_pre_hooks)
                self._without_hooks += [found for found in hooks if not _foreign(found)]
        # Or new weights could take the place of old ones in memory, and look like them.
        self._kept = [tensor.detach() for _, _, tensor, _, _ in self._tensors]
        # Of PyTorch's old weight norm, which the weights that are read account for.
        self._with_norm = [hooks for hooks in self._without_hooks if hooks]
        self._without_hooks = [hooks for hooks in self._without_hooks if not hooks]
        self._norms = sum(map(len, self._with_norm))

    def unchanged(self) -> bool:
        """Whether the module is as it was."""
        # Plain loops: faster than maps of the same comparisons.
        try:
            for owner, name, child in self._children:
                if owner[name] is not child:
                    return False
            for owner, size in self._containers:
                if len(owner) != size:
                    return False
            for owner, name, tensor, version, pointer in self._tensors:
                if owner[name] is not tensor or tensor.data_ptr() != pointer:
                    return False
                if version >= 0 and tensor._version != version:
                    return False
        except KeyError:
            return False
        return not any(self._without_hooks) and self._norms == sum(map(len, self._with_norm))

    def wants_gradients(self) -> bool:
        """Whether one of its tensors does."""
        return any(tensor.requires_grad for _, _, tensor, _, _ in self._tensors)


def has_hooks(root: nn.Module) -> bool:
    """Whether a module below `root` has hooks, other than those of PyTorch's old weight norm."""
    modules = [module for module in root.modules() if module is not root]
    return any(_foreign(m._forward_hooks) or _foreign(m._forward_pre_hooks) for m in modules)


def _foreign(hooks: dict[int, Any]) -> bool:
    return any(not isinstance(hook, WeightNorm) for hook in hooks.values())
