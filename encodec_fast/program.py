"""Program files: a model as a flat list of operations and weights, read without PyTorch.

The format (safetensors with the list in its metadata) is specified in docs/program.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from encodec_fast import _native
from encodec_fast.device import DeviceWeights
from encodec_fast.store import check_name
from encodec_fast.tensor_file import MAX_HEADER as MAX_HEADER
from encodec_fast.tensor_file import Kind, Tensors, integer, split, string

FORMAT = 1
METADATA_KEY = "encodec_fast.program"
KIND = Kind("a", "program", METADATA_KEY, FORMAT)
# Between the operations, for the least that they can run: a frame, or a segment. A real model has
# a few ten million; the cap keeps a hostile program from asking for memory without bound.
MAX_PIECE_BYTES = 1 << 30


@dataclass(frozen=True)
class Header:
    """What a program says about its model.

    `bandwidths` maps kbps to the number of codebooks; lengths are in samples per channel;
    `segment_length` and `segment_stride` are None for models that code a recording as a whole, in
    blocks; the others are `segmented`.
    """

    name: str
    sample_rate: int
    channels: int
    hop: int
    bandwidths: dict[float, int]
    codebook_size: int
    normalize: bool
    segment_length: int | None
    segment_stride: int | None

    @property
    def segmented(self) -> bool:
        """Whether recordings are coded segment by segment, each at once."""
        return self.segment_length is not None

    @property
    def n_codebooks(self) -> int:
        """Codebooks of the highest bandwidth."""
        return max(self.bandwidths.values())

    @property
    def codebook_bits(self) -> int:
        """Bits per code."""
        return (self.codebook_size - 1).bit_length()

    def n_q(self, bandwidth: float | None) -> int:
        """Codebooks used at `bandwidth` kbps, None meaning all. Raises ValueError for others."""
        if bandwidth is None:
            return self.n_codebooks
        found = self.bandwidths.get(bandwidth) if isinstance(bandwidth, (int, float)) else None
        if found is None:
            supported = ", ".join(f"{b:g}" for b in self.bandwidths)
            raise ValueError(
                f"bandwidth: {self.name} supports {supported} kbps, found {bandwidth!r}"
            )
        return found


@dataclass(frozen=True)
class Program:
    """A model ready to run: its header and the native graphs and codebooks (immutable, shared).

    `hash` is the first eight hexadecimal digits of the file's SHA-256: what files call the model.
    `device` has copies of the weights where the program runs on one; None: on the CPU.
    """

    header: Header
    encoder: _native.Graph
    decoder: _native.Graph
    codebooks: _native.Codebooks
    hash: str
    device: DeviceWeights | None = None

    def on(self, device: str) -> Program:
        """The same program on "cpu", "cuda" (the first GPU) or "cuda:N", with the same results.

        Raises ValueError for another device and OSError (saying why) where it cannot be used.
        """
        if device == "cpu":
            return replace(self, device=None)
        return replace(
            self, device=DeviceWeights(self.encoder, self.decoder, self.codebooks, device)
        )

    @property
    def breadth(self) -> int:
        """Streams that a native call should have to fill the device; with fewer, their blocks
        should be as much longer."""
        return 1 if self.device is None else self.device.breadth

    def new_encoder(self, lanes: int, low_latency: bool = False) -> Any:
        """A native encoder of `lanes` streams, where the program runs."""
        if self.device is not None:
            return self.device.new_encoder(lanes, low_latency)
        return _native.Encoder(self.encoder, self.codebooks, lanes, low_latency)

    def new_decoder(self, lanes: int, low_latency: bool = False) -> Any:
        """The inverse of new_encoder."""
        if self.device is not None:
            return self.device.new_decoder(lanes, low_latency)
        return _native.Decoder(self.decoder, self.codebooks, lanes, low_latency)

    def new_lm_coder(self, lm: _native.LanguageModel, n_q: int, lanes: int) -> Any:
        """A native coder of `lanes` sequences of codes of `n_q` codebooks with the language model
        `lm`, where the program runs."""
        if self.device is not None:
            return self.device.new_lm_coder(lm, n_q, lanes)
        return _native.LmCoder(lm, n_q, lanes)

    @staticmethod
    def load(path: str | Path) -> Program:
        """Read and check a program file.

        Raises OSError if it cannot be read and ValueError (naming the file and what is wrong) if
        it is not a program, is damaged, or is of a format this version does not know.
        """
        with Path(path).open("rb") as file:
            data = file.read()
        try:
            description, metadata, start = split(data, len(data), KIND)
            tensors = Tensors(description, memoryview(data)[start:])
            program = _build(metadata, tensors, hashlib.sha256(data).hexdigest()[:8])
        except (KeyError, TypeError, OverflowError, AttributeError) as error:
            raise ValueError(f"{path}: not a valid program: {error!r}") from None
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        return program


def read_header(path: str | Path) -> Header:
    """The header of a program file, without its weights. Raises as Program.load."""
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        data = file.read(min(size, MAX_HEADER + 8))
    try:
        description, metadata, _ = split(data, size, KIND)
        return _header(metadata, description[string(metadata, "codebooks")]["shape"])
    except (KeyError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(f"{path}: not a valid program: {error!r}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def is_program(path: str | Path) -> bool:
    """Whether a file claims to be a program, sound or not. Raises OSError if it cannot be read."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        return METADATA_KEY.encode() in file.read(MAX_HEADER + 8)


def _flag(op: dict[str, Any], key: str) -> bool:
    value = op[key]
    if not isinstance(value, bool):
        raise ValueError(f"{key}: expected true or false, found {value!r}")
    return value


def _header(metadata: dict[str, Any], codebooks_shape: list[int]) -> Header:
    count, size, _ = codebooks_shape
    bandwidths: dict[float, int] = {}
    for bandwidth, n_q in metadata["bandwidths"]:
        if not isinstance(bandwidth, (int, float)) or not 0 < bandwidth < 1e6:
            raise ValueError(f"bandwidths: expected kbps, found {bandwidth!r}")
        if bandwidths and bandwidth <= next(reversed(bandwidths)):
            raise ValueError("bandwidths: expected rising kbps")
        bandwidths[float(bandwidth)] = integer(n_q, "bandwidths: codebooks", 1, count)
    if not bandwidths:
        raise ValueError("bandwidths: expected at least one")
    length, stride = metadata["segment_length"], metadata["segment_stride"]
    if (length is None) != (stride is None):
        raise ValueError("segment_length and segment_stride: expected both or neither")
    if length is not None:
        integer(length, "segment_length", 1, 1 << 21)
        integer(stride, "segment_stride", -(-length // 64), length)
    normalize = _flag(metadata, "normalize")
    if normalize and length is None:
        raise ValueError("normalize: expected a model that codes segments")
    return Header(
        name=check_name(string(metadata, "name")),
        sample_rate=integer(metadata["sample_rate"], "sample_rate", 1, 1 << 22),
        channels=integer(metadata["channels"], "channels", 1, 64),
        hop=integer(metadata["hop"], "hop", 1, 1 << 16),
        bandwidths=bandwidths,
        codebook_size=integer(size, "codebooks: entries", 2, 1 << 16),
        normalize=normalize,
        segment_length=length,
        segment_stride=stride,
    )


def _build(metadata: dict[str, Any], tensors: Tensors, digest: str) -> Program:
    books = tensors.take(metadata["codebooks"])
    if books.ndim != 3:
        raise ValueError(f"codebooks: expected 3 dimensions, found {books.ndim}")
    header = _header(metadata, list(books.shape))
    encoder = build_graph("encoder", header.channels, metadata["encoder"], tensors)
    decoder = build_graph("decoder", books.shape[2], metadata["decoder"], tensors)
    for name, found, expected in (
        ("encoder: samples per frame", (encoder.down, encoder.up), (header.hop, 1)),
        ("encoder: latent dimension", encoder.out_channels, books.shape[2]),
        ("decoder: samples per frame", (decoder.up, decoder.down), (header.hop, 1)),
        ("decoder: channels", decoder.out_channels, header.channels),
        ("encoder and decoder: causal", encoder.causal, decoder.causal),
    ):
        if found != expected:
            raise ValueError(f"{name}: expected {expected}, found {found}")
    if encoder.causal and header.segmented:
        raise ValueError("segment_length: expected null for causal operations")
    if not header.segmented and not (encoder.streams and decoder.streams):
        raise ValueError("segment_length: expected samples for operations that need whole segments")
    frames = -(-(header.segment_length or 0) // header.hop)
    for name, graph, length in (
        ("encoder", encoder, header.segment_length),
        ("decoder", decoder, frames),
    ):
        if (found_bytes := graph.piece_bytes(length or graph.down)) > MAX_PIECE_BYTES:
            raise ValueError(
                f"{name}: expected operations that need at most {MAX_PIECE_BYTES} bytes between "
                f"them, found {found_bytes:.3g}"
            )
    return Program(header, encoder, decoder, _native.Codebooks(books), digest)


class TensorSource(Protocol):
    """Where operations take their weights from: a file's tensors, or arrays in memory."""

    def take(self, name: object) -> npt.NDArray[np.float32]:
        """As float32."""

    def take_weight(self, name: object) -> npt.NDArray[Any]:
        """As float32, or as the uint16 that hold bfloat16."""


def build_graph(
    name: str, channels: int, ops: list[dict[str, Any]], tensors: TensorSource
) -> _native.Graph:
    """The graph of an operation list (docs/program.md) on inputs of `channels`. Raises ValueError,
    KeyError, TypeError or AttributeError for one that is not sound; messages begin with `name`."""
    if not isinstance(ops, list) or not 1 <= len(ops) <= 1000:
        raise ValueError(f"{name}: expected a list of 1..1000 operations")
    graph = _native.Graph(channels)
    for index, op in enumerate(ops):
        try:
            _append(graph, op, tensors)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{name} operation {index}: {error}") from None
    try:
        graph.seal()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return graph


def _append(graph: _native.Graph, op: dict[str, Any], tensors: TensorSource) -> None:
    kind = op["op"]
    source = integer(op["input"], "input", 0, 1 << 20)
    elu = _flag(op, "elu")
    weight, bias = tensors.take_weight(op["weight"]), tensors.take(op["bias"])
    add = op.get("add")
    add = -1 if add is None else integer(add, "add", 0, 1 << 20)
    if kind == "lstm":
        recurrent = tensors.take_weight(op["recurrent"])
        if weight.dtype != recurrent.dtype:
            raise ValueError("weight and recurrent: expected both or neither as BF16")
        graph.lstm(source, add, elu, weight, recurrent, bias)
        return
    scale, offset, eps = _norm(op["norm"], tensors)
    stride = integer(op["stride"], "stride", 1, 1 << 12)
    if kind == "conv":
        kernel = integer(op["kernel"], "kernel", 1, 1 << 12)
        left, right = (integer(p, "pad", 0, 1 << 12) for p in op["pad"])
        if op["pad_mode"] not in ("reflect", "constant"):
            raise ValueError(f"pad_mode: expected reflect or constant, found {op['pad_mode']!r}")
        reflect = op["pad_mode"] == "reflect"
        graph.conv(
            source, add, elu, kernel, stride, left, right, reflect, weight, bias, scale, offset, eps
        )
    elif kind == "conv_transpose":
        trim = integer(op["trim_left"], "trim_left", 0, 1 << 12)
        graph.conv_transpose(source, elu, stride, trim, weight, bias, scale, offset, eps)
    else:
        raise ValueError(f"op: expected conv, conv_transpose or lstm, found {kind!r}")


def _norm(
    norm: dict[str, Any] | None, tensors: TensorSource
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.float32] | None, float]:
    if norm is None:
        return None, None, 0.0
    eps = norm["eps"]
    if not isinstance(eps, float) or not 0 < eps < 1:
        raise ValueError(f"norm eps: expected a number in 0..1, found {eps!r}")
    return tensors.take(norm["scale"]), tensors.take(norm["offset"]), eps
