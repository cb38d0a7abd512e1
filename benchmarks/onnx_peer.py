"""ONNX Runtime as a peer: the reference's encoder and decoder networks, exported by PyTorch.

The networks alone: no vector quantisation, no normalisation of segments and no joining of them. An
export holds for one length of input (the reference computes its padding from it), so there is one
session per length, on one thread.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
from contestants import Contestant, FloatArray, pieces, reference_model

from encodec_fast.models.config import ModelConfig
from encodec_fast.models.encodec import EncodecModel


class Network:
    """A PyTorch module of one input [1, channels, length] and one output as ONNX sessions."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._sessions: dict[int, Any] = {}

    def __call__(self, x: FloatArray) -> FloatArray:
        """Run `x` [channels, length]; returns [channels, length] of the output."""
        length = x.shape[1]
        if length not in self._sessions:
            self._sessions[length] = _session(self._module, torch.from_numpy(x[None]))
        session = self._sessions[length]
        result: FloatArray = session.run(None, {session.get_inputs()[0].name: x[None]})[0][0]
        return result


def _session(module: torch.nn.Module, example: torch.Tensor) -> Any:
    import onnxruntime  # only here: races against other peers do without it

    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # that lengths become constants, as they shall
        # The exporter that traces: the newer one takes six times as long for the same speed.
        torch.onnx.export(module, (example,), file, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(
        file.getvalue(), options, providers=["CPUExecutionProvider"]
    )


def _segments(wav: FloatArray, config: ModelConfig) -> list[FloatArray]:
    stride = config.segment_stride or wav.shape[1]
    length = config.segment_length or wav.shape[1]
    return [wav[:, start : start + length] for start in range(0, wav.shape[1], stride)]


def onnx_runtime(model: EncodecModel, bandwidth: float) -> Contestant:
    """The reference's two networks with the weights of `model`; what lies between is latents."""
    fb = reference_model(model, bandwidth)
    encoder, decoder = Network(fb.encoder), Network(fb.decoder)

    def encode(wav: FloatArray) -> list[FloatArray]:
        parts = pieces(wav, model.config.sample_rate)
        return [encoder(s) for part in parts for s in _segments(part, model.config)]

    return Contestant("ONNX Runtime, networks alone", encode, lambda z: [decoder(x) for x in z])
