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
