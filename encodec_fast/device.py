"""A program's weights on a GPU, and the native coders that read them there."""

from __future__ import annotations

import threading
from typing import Any

from encodec_fast import _native

# Streams of 64 frames: 4096 rows at the frame rate fill the multiprocessors of the largest GPUs.
BREADTH = 64


class DeviceWeights:
    """The weights of one program on one GPU, uploaded once and shared by all its coders.

    Attribute device: "cuda:N"; breadth: see Program. Raises ValueError for a device that does not
    exist and OSError where it cannot be used, or its memory is full.
    """

    breadth = BREADTH

    def __init__(
        self,
        encoder: _native.Graph,
        decoder: _native.Graph,
        codebooks: _native.Codebooks,
        device: str,
    ) -> None:
        self._cuda, number = _native.open_cuda(device)
        self.device = f"cuda:{number}"
        self._encoder = self._cuda.DeviceGraph(encoder, number)
        self._decoder = self._cuda.DeviceGraph(decoder, number)
        self._books = codebooks
        self._codebooks = self._cuda.DeviceCodebooks(codebooks, number)
        self._number = number
        self._lock = threading.Lock()
        # Of the last language model that was asked for: a program has one, as a rule.
        self._lm: tuple[_native.LanguageModel, Any] | None = None

    def new_encoder(self, lanes: int, low_latency: bool) -> Any:
        """As Program.new_encoder."""
        return self._cuda.Encoder(self._encoder, self._codebooks, lanes, low_latency)

    def new_decoder(self, lanes: int, low_latency: bool) -> Any:
        """As Program.new_decoder."""
        return self._cuda.Decoder(self._decoder, self._codebooks, lanes, low_latency)

    def new_lm_coder(self, lm: _native.LanguageModel, n_q: int, lanes: int) -> Any:
        """A coder on this GPU as _native.LmCoder(lm, n_q, lanes) is one on the CPU: the same
        methods, with the same results. All coders of a model share its weights there. Raises
        ValueError as that does, OSError where the GPU fails or is full."""
        with self._lock:
            if self._lm is None or self._lm[0] is not lm:
                self._lm = None  # first, so that both are never held
                self._lm = (lm, self._cuda.DeviceLanguageModel(lm, self._number))
            weights = self._lm[1]
        return self._cuda.LmCoder(weights, n_q, lanes)

    def rvq_encode(self, latents: Any, n_q: int) -> Any:
        """Codes of latents that are on this GPU: a contiguous torch tensor float32 [rows,
        dimension] to uint16 [n_q, rows] on the same GPU. Raises ValueError for another tensor or
        n_q, OSError where the GPU fails."""
        import torch  # whoever calls this has it

        shape = (None, self._books.dimension)
        check_tensor("latents", latents, self.device, torch.float32, shape)
        rows = latents.shape[0]
        codes = torch.empty((max(n_q, 0), rows), dtype=torch.uint16, device=latents.device)
        with torch.cuda.device(latents.device):  # the native call makes it the thread's
            stream = torch.cuda.current_stream().cuda_stream
            self._codebooks.encode(latents.data_ptr(), rows, n_q, codes.data_ptr(), stream)
        return codes

    def rvq_decode(self, codes: Any) -> Any:
        """The inverse: uint16 [n_q, rows] to float32 [rows, dimension]. Raises ValueError for
        another tensor and for codes that are too large, OSError where the GPU fails."""
        import torch

        check_tensor("codes", codes, self.device, torch.uint16, (None, None))
        n_q, rows = codes.shape
        shape = (rows, self._books.dimension)
        latents = torch.empty(shape, dtype=torch.float32, device=codes.device)
        with torch.cuda.device(codes.device):
            stream = torch.cuda.current_stream().cuda_stream
            self._codebooks.decode(codes.data_ptr(), rows, n_q, latents.data_ptr(), stream)
        return latents


def check_tensor(
    name: str,
    tensor: Any,
    device: str,
    dtype: Any,
    shape: tuple[int | None, ...],
    strided: bool = False,
) -> None:
    """Raises ValueError, naming the argument, what was expected and what was found, for anything
    but a PyTorch tensor on `device` ("cuda:N") of that type and shape (None: any size), contiguous
    unless `strided`."""
    where = f"{getattr(tensor, 'device', type(tensor).__name__)}"
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
