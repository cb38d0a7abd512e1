"""What stands in for modules whose weights are on a GPU: the native graphs and codebooks there, on
PyTorch's tensors by their addresses. Results are those of the CPU, bit for bit.

Calls are queued in the order of PyTorch's current stream, and return before they are done, as
PyTorch's own do; what fails on the GPU meanwhile is an error of a later call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from encodec_fast import _native
from encodec_fast.device import BREADTH
from encodec_fast.integrations.seanet import UnsupportedError
from encodec_fast.lanes import block_bounds, block_frames

Result = TypeVar("Result")

_MOST_ENTRIES = 0xFFFF  # of a codebook: a code that none has stands for those out of range


@contextmanager
def current_stream(device: torch.device) -> Iterator[int]:
    """The handle of PyTorch's current stream on a GPU. Native calls within make the GPU the
    thread's current one; afterwards it is again the one that PyTorch knows."""
    with torch.cuda.device(device):
        yield torch.cuda.current_stream(device).cuda_stream


def is_capturing(device: torch.device) -> bool:
    """Whether the current stream of a GPU is being captured into a CUDA graph."""
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


def _at(tensor: Tensor, item: int) -> int:
    """The address of an item of a batch."""
    return tensor.data_ptr() + item * tensor.stride(0) * tensor.element_size()


class OnDevice:
    """What both have in common. device: as that of a tensor. Raises UnsupportedError for a GPU that
    this build, or its driver, cannot use."""

    def __init__(self, device: torch.device) -> None:
        try:
            self._cuda, self._number = _native.open_cuda(str(device))
        except (OSError, ValueError) as error:
            raise UnsupportedError(str(error)) from None
        self.device = device

    def _with_room(self, call: Callable[[], Result]) -> Result:
        """What `call` returns. PyTorch keeps memory that it has freed: where the GPU has none left,
        it gives that back, and `call` is made once more."""
        try:
            return call()
        except self._cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
        return call()


class DeviceNetwork(OnDevice):
    """Runs a graph on batches of whole signals of one length; may serve many threads at once.

    Graphs that stream take signals in blocks, so that memory does not grow with their length.
    """

    def __init__(self, graph: _native.Graph, device: torch.device) -> None:
        super().__init__(device)
        self._graph = graph
        self._lanes = BREADTH if graph.streams else BREADTH // 2
        with current_stream(device):
            self._weights = self._with_room(lambda: self._cuda.DeviceGraph(graph, self._number))
        # Natives that no thread is using: their memory, of a block of all lanes, is worth keeping.
        self._idle: deque[Any] = deque()

    def __call__(self, signals: Tensor) -> Tensor:
        """float32 [batch >= 1, channels, rows >= 1] to [batch, out channels, rows * up / down,
        rounded up], both on the GPU. Raises ValueError for another tensor, OSError where the GPU
        fails or has no memory left; the next call may do better."""
        graph = self._graph
        shape = (None, graph.in_channels, None)
        signals = signals.contiguous()
        _check_tensor("signals", signals, str(self.device), torch.float32, shape)
        batch, _, rows = signals.shape
        out = signals.new_empty(batch, graph.out_channels, -(-rows * graph.up // graph.down))
        with current_stream(self.device) as stream:
            for first in range(0, batch, self._lanes):
                count = min(self._lanes, batch - first)
                ends = self._ends(rows, count)
                places = _at(signals, first), _at(out, first)
                self._with_room(partial(self._run, *places, count, rows, ends, stream))
        return out

    def _run(
        self, signals: int, out: int, count: int, rows: int, ends: list[int], stream: int
    ) -> None:
        try:
            native = self._idle.pop()
        except IndexError:
            native = self._cuda.SignalNetwork(self._weights, self._lanes)
        native.run(signals, out, count, rows, ends, stream)
        self._idle.append(native)  # one that failed goes, with its memory

    def _ends(self, rows: int, count: int) -> list[int]:
        graph = self._graph
        if not graph.streams:
            return [rows]
        frames = block_frames(BREADTH, count)
        bounds = block_bounds(rows, graph.down, graph.start_rows, last=True, frames=frames)
        return [end for _, end in bounds]


class DeviceCodebooks(OnDevice):
    """A residual vector quantiser's codebooks; may serve many threads at once."""

    def __init__(self, codebooks: _native.Codebooks, device: torch.device) -> None:
        super().__init__(device)
        if codebooks.size > _MOST_ENTRIES:
            raise UnsupportedError(f"its codebooks have more than {_MOST_ENTRIES} entries")
        self._dimension = codebooks.dimension
        with current_stream(device):
            self._books = self._with_room(
                lambda: self._cuda.DeviceCodebooks(codebooks, self._number)
            )

    def encode(self, latents: Tensor, n_q: int) -> Tensor:
        """Contiguous float32 [rows, dimension] to codes int64 [n_q, rows]. Raises ValueError for
        another tensor or n_q, OSError where the GPU fails."""
        shape = (None, self._dimension)
        _check_tensor("latents", latents, str(self.device), torch.float32, shape)
        rows = latents.shape[0]
        # int16: PyTorch converts few types to and from uint16.
        codes = latents.new_empty((max(n_q, 0), rows), dtype=torch.int16)
        with current_stream(self.device) as stream:
            places = latents.data_ptr(), rows, n_q, codes.data_ptr()
            self._with_room(lambda: self._books.encode(*places, stream))
        return codes.to(torch.int64).bitwise_and_(0xFFFF)

    def decode(self, codes: Tensor) -> Tensor:
        """The inverse: int64 [n_q, rows] to float32 [rows, dimension]. Waits, to raise ValueError
        for codes that are out of range; other errors as `encode`."""
        _check_tensor("codes", codes, str(self.device), torch.int64, (None, None), strided=True)
        n_q, rows = codes.shape
        small = codes.clamp(-1, 0xFFFF).to(torch.int16).contiguous()
        latents = codes.new_empty((rows, self._dimension), dtype=torch.float32)
        with current_stream(self.device) as stream:
            places = small.data_ptr(), rows, n_q, latents.data_ptr()
            self._with_room(lambda: self._books.decode(*places, stream))
        return latents


def _check_tensor(
    name: str,
    tensor: Tensor,
    device: str,
    dtype: torch.dtype,
    shape: tuple[int | None, ...],
    strided: bool = False,
) -> None:
    """Raises ValueError, naming the argument, what was expected and what was found, for anything
    but a tensor on `device` ("cuda:N") of that type and shape (None: any size), contiguous
    unless `strided`."""
    where = str(tensor.device)
    if where != device:
        raise ValueError(f"{name}: expected a tensor on {device}, found {where}")
    if tensor.dtype != dtype:
        raise ValueError(f"{name}: expected {dtype}, found {tensor.dtype}")
    found = tuple(tensor.shape)
    fits = len(found) == len(shape) and all(
        size is None or size == n for size, n in zip(shape, found, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape [{sizes}], found {list(found)}")
    if not (strided or tensor.is_contiguous()):
        raise ValueError(f"{name}: expected a contiguous tensor, found {tensor.stride()}")
