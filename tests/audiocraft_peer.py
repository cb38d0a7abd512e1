"""audiocraft's own EnCodec models, carrying random but realistic weights, to compare with.

audiocraft pins an old PyTorch and needs much that its codecs never call. It is installed without
its dependencies; what is heavy is replaced by blank modules while it is imported:

    pip install --no-deps audiocraft==1.3.0 flashy dora-search omegaconf hydra-core colorlog \
        antlr4-python3-runtime==4.9.3 julius num2words treetable retrying submitit
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peers import condition, fb_state_dict
from signals import program_material
from torch import Tensor

from encodec_fast.models.audiocraft_checkpoint import audiocraft_config
from encodec_fast.models.encodec import EncodecModel

RECIPES = ("base_24khz", "musicgen_32khz", "audiogen_16khz")
# Seconds of audio that give a full-size model's codebooks enough vectors to be drawn from.
FIT_SECONDS = {"base_24khz": 40.0, "musicgen_32khz": 60.0, "audiogen_16khz": 60.0}
MIN_DISTINCT_CODES = 200
BLANK = (
    *("av", "spacy", "torchaudio", "torchaudio.transforms", "torchaudio.functional"),
    *("torchmetrics", "torchmetrics.audio", "xformers", "xformers.ops"),
)
REASON = "no audiocraft: tests/audiocraft_peer.py says how to install it"


def settings(recipe: str, **changes: Any) -> dict[str, Any]:
    """What `xp.cfg` of a published recipe says about the model, with `changes` by dotted name."""
    rate = int(recipe.rpartition("_")[2].removesuffix("khz")) * 1000
    causal = recipe == "base_24khz"
    found = {
        "sample_rate": rate,
        "channels": 1,
        "device": "cpu",
        "solver": "compression",
        "dora": {"dir": "/checkpoint/${oc.env:USER}/experiments"},
        "compression_model": "encodec",
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": "${sample_rate}",
            "channels": "${channels}",
            "causal": causal,
            "renormalize": False,
        },
        "seanet": {
            "dimension": 128,
            "channels": "${channels}",
            "causal": "${encodec.causal}",
            "n_filters": 32 if causal else 64,
            "n_residual_layers": 1,
            "ratios": [8, 5, 4, 4] if recipe == "musicgen_32khz" else [8, 5, 4, 2],
            "activation": "ELU",
            "activation_params": {"alpha": 1.0},
            "norm": "weight_norm",
            "norm_params": {},
            "kernel_size": 7,
            "residual_kernel_size": 3,
            "last_kernel_size": 7,
            "dilation_base": 2,
            "pad_mode": "constant",
            "true_skip": True,
            "compress": 2,
            "lstm": 2,
            "disable_norm_outer_blocks": 0,
            "decoder": {
                "trim_right_ratio": 1.0,
                "final_activation": None,
                "final_activation_params": None,
            },
            "encoder": {},
        },
        "rvq": {
            "n_q": 32 if causal else 4,
            "q_dropout": causal,
            "bins": 1024 if causal else 2048,
            "decay": 0.99,
            "kmeans_init": True,
            "kmeans_iters": 50,
            "threshold_ema_dead_code": 2,
            "orthogonal_reg_weight": 0.0,
            "orthogonal_reg_active_codes_only": False,
        },
        "no_quant": {},
    }
    return changed(found, **changes)


def changed(found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of the settings with others, named `seanet__lstm` for seanet.lstm; `...` removes."""
    result = copy.deepcopy(found)
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = result
        for part in parts:
            place = place[part]
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return result


SMALL = {"seanet__n_filters": 4, "seanet__dimension": 16, "seanet__lstm": 1, "rvq__bins": 64}


@dataclass(frozen=True)
class AudiocraftPeer:
    """One set of weights in audiocraft's model and in ours, and the settings of both."""

    settings: dict[str, Any]
    theirs: Any
    ours: EncodecModel

    def encode(self, wav: Tensor, n_q: int | None = None) -> Tensor:
        """Codes int64 [B, K, F] of `wav` [B, C, T] by audiocraft."""
        self.theirs.set_num_codebooks(n_q or self.theirs.total_codebooks)
        with torch.inference_mode():
            codes, scale = self.theirs.encode(wav)
        assert scale is None
        return codes


def import_audiocraft() -> Any:
    """The package `audiocraft`, without the heavy packages it imports; skips the test without it.

    The blank modules are gone afterwards, so that nobody takes them for the real ones.
    """
    if "audiocraft.models" in sys.modules:
        return sys.modules["audiocraft"]
    for name in ("audiocraft", "flashy", "omegaconf", "julius", "num2words"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(REASON)
    # Before the blanks are there: transformers remembers which packages it has seen.
    from transformers import EncodecModel, RobertaTokenizer, T5EncoderModel, T5Tokenizer

    assert all((EncodecModel, RobertaTokenizer, T5EncoderModel, T5Tokenizer))
    with _blank_modules(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old spellings of PyTorch
        package = importlib.import_module("audiocraft")
        importlib.import_module("audiocraft.models.builders")
        importlib.import_module("audiocraft.utils.export")
    return package


class _Blank(types.ModuleType):
    """A module in which every name is a class that nobody instantiates."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


@contextlib.contextmanager
def _blank_modules() -> Iterator[None]:
    missing = [name for name in BLANK if not _is_installed(name.partition(".")[0])]
    before = {name: sys.modules.get(name) for name in missing}
    for name in missing:
        module = _Blank(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, loader=None)
        module.__path__ = []
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


def _is_installed(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.loader is not None  # tests/peers.py leaves one without


def build_audiocraft(found: dict[str, Any]) -> Any:
    """audiocraft's model of these settings, in eval mode, weights as it initialises them."""
    import_audiocraft()
    from audiocraft.models import builders
    from omegaconf import OmegaConf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its weight norm is PyTorch's old one
        return builders.get_compression_model(OmegaConf.create(found)).eval()


def conditioned(found: dict[str, Any], seconds: float, seed: int = 0) -> EncodecModel:
    """Our model of these settings, conditioned on audio (see tests/peers.py)."""
    config = audiocraft_config({"xp.cfg": found}, Path("settings"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EncodecModel(config).eval()
        wav = program_material("train", config.sample_rate, config.channels, seconds)
        condition(model, torch.from_numpy(wav), config.sample_rate, normalize=False)
    for q in range(config.n_codebooks):  # or else audiocraft's forward would fit them once more
        model.quantizer.codebook(q).inited.fill_(1)
    return model


def build_audiocraft_peer(found: dict[str, Any], seconds: float) -> AudiocraftPeer:
    """Both models with equal weights, conditioned on `seconds` of audio."""
    theirs = build_audiocraft(found)
    ours = conditioned(found, seconds)
    theirs.load_state_dict(fb_state_dict(ours.state_dict()), strict=True)
    return AudiocraftPeer(found, theirs, ours)
