"""What the benchmarks time: a codec of ours and its peers, all with the same random weights.

Speed does not depend on what the weights are. Peers code long recordings in pieces of a minute,
which costs them nothing: their memory grows with the length.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from encodec_fast.codec import Codec
from encodec_fast.models.config import CONFIGS
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.export import export_model

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from peers import Peer, fb_state_dict, hf_config, import_encodec
from signals import FloatArray

PIECE_SECONDS = 60


@dataclass(frozen=True)
class Contestant:
    """`encode` takes a recording, float32 [channels, samples], `decode` what `encode` returned."""

    name: str
    encode: Callable[[FloatArray], Any]
    decode: Callable[[Any], Any]


def random_model(name: str) -> EncodecModel:
    """Our PyTorch model with random weights."""
    torch.manual_seed(0)
    model = EncodecModel(CONFIGS[name]).eval()
    for index in range(model.config.n_codebooks):
        model.quantizer.codebook(index).embed.normal_()
    return model


@contextmanager
def exported(model: EncodecModel, dtype: str = "float32") -> Iterator[Path]:
    """The program file of `model`, while the context lasts. Raises ValueError for a dtype of
    weights that export refuses."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.safetensors"
        export_model(model, path, dtype)
        yield path


def native_codec(model: EncodecModel, dtype: str = "float32") -> Codec:
    """The native codec of `model` on one thread. Raises as `exported`."""
    with exported(model, dtype) as path:
        return Codec.load(path)


def codecs_by_weights(model: EncodecModel, dtypes: list[str]) -> dict[str, Codec]:
    """The native codecs of `model` by dtype of weights; one that export refuses is reported on
    stderr and left out."""
    codecs = {}
    for dtype in dtypes:
        try:
            codecs[dtype] = native_codec(model, dtype)
        except ValueError as error:
            print(f"{model.config.name}, {dtype} weights: left out: {error}", file=sys.stderr)
    return codecs


def reference_model(model: EncodecModel, bandwidth: float) -> Any:
    """The PyPI package `encodec`'s model with the weights of `model`, at `bandwidth` kbps."""
    name = model.config.name.replace("encodec_", "encodec_model_")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its weight norm is PyTorch's old one
        fb = getattr(import_encodec().EncodecModel, name)(pretrained=False)
    fb.load_state_dict(fb_state_dict(model.state_dict()))
    fb.set_target_bandwidth(bandwidth)
    return fb.eval()


def transformers_model(model: EncodecModel) -> Any:
    """transformers' EncodecModel with the weights of `model`."""
    from transformers import EncodecModel as TransformersModel

    hf = TransformersModel(hf_config(model.config.name)).eval()
    hf.load_state_dict(model.state_dict())
    return hf


def pieces(wav: FloatArray, sample_rate: int) -> list[FloatArray]:
    """The recording [channels, samples] in pieces that any peer has memory for."""
    length = PIECE_SECONDS * sample_rate
    return [wav[:, start : start + length] for start in range(0, wav.shape[1], length)]


def ours(codec: Codec, bandwidth: float) -> Contestant:
    """The native codec; recordings as a whole, whatever their length."""
    return Contestant("encodec-fast", lambda wav: codec.encode(wav, bandwidth), codec.decode)


def reference(model: EncodecModel, bandwidth: float) -> Contestant:
    """The PyPI package `encodec`."""
    return _by_pieces("encodec", reference_model(model, bandwidth), model.config.sample_rate)


def our_pytorch(model: EncodecModel, bandwidth: float) -> Contestant:
    """`model` itself, which makes the same operations in PyTorch."""

    class AtBandwidth:
        decode = model.decode

        @staticmethod
        def encode(x: torch.Tensor) -> Any:
            return model.encode(x, bandwidth)

    return _by_pieces("our PyTorch model", AtBandwidth, model.config.sample_rate)


def _by_pieces(name: str, model: Any, sample_rate: int) -> Contestant:
    @torch.inference_mode()
    def encode(wav: FloatArray) -> list[Any]:
        return [model.encode(torch.from_numpy(p)[None]) for p in pieces(wav, sample_rate)]

    @torch.inference_mode()
    def decode(parts: list[Any]) -> list[torch.Tensor]:
        return [model.decode(part) for part in parts]

    return Contestant(name, encode, decode)


def transformers(model: EncodecModel, bandwidth: float) -> Contestant:
    """transformers' EncodecModel, one recording at a time."""
    peer = Peer(model.config.name, transformers_model(model), None)

    def encode(wav: FloatArray) -> list[Any]:
        return [peer.encode(p, bandwidth) for p in pieces(wav, peer.sample_rate)]

    return Contestant("transformers", encode, lambda parts: [peer.decode(part) for part in parts])
