"""audiocraft's checkpoints of EnCodec models: their configuration as ours, and their weights.

Two kinds of file. audiocraft's export writes `compression_state_dict.bin`: the weights under
`best_state`, the configuration under `xp.cfg` as YAML. A training run writes `checkpoint.th`: the
weights under `best_state`, `model`, and averaged under `ema`, the configuration pickled as objects
of omegaconf. Those are read into holders of plain values (`omegaconf_as_plain`), never as code.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from encodec_fast.models.config import CONFIGS, ModelConfig, typed

EXPORTED_FILE = "compression_state_dict.bin"

# audiocraft's setting: our field, and the default of audiocraft's classes, which differ from its
# recipes. A setting of `seanet` may stand in `seanet.encoder` and `seanet.decoder` too.
_FIELDS: dict[str, tuple[str, Any]] = {
    "seanet.causal": ("causal", False),
    "seanet.dimension": ("dimension", 128),
    "seanet.n_filters": ("n_filters", 32),
    "seanet.n_residual_layers": ("n_residual_layers", 3),
    "seanet.ratios": ("ratios", (8, 5, 4, 2)),
    "seanet.norm": ("norm", "none"),
    "seanet.kernel_size": ("kernel_size", 7),
    "seanet.last_kernel_size": ("last_kernel_size", 7),
    "seanet.residual_kernel_size": ("residual_kernel_size", 3),
    "seanet.pad_mode": ("pad_mode", "reflect"),
    "seanet.true_skip": ("true_skip", True),
    "seanet.compress": ("compress", 2),
    "seanet.lstm": ("lstm_layers", 0),
    "encodec.renormalize": ("normalize", False),
    "rvq.bins": ("codebook_size", 1024),
}
# What changes the computation and has no field in ModelConfig, with the one value that it may have.
_ONLY: dict[str, Any] = {
    "compression_model": "encodec",
    "encodec.autoencoder": "seanet",
    "encodec.quantizer": "rvq",
    "seanet.activation": "ELU",
    "seanet.activation_params": {"alpha": 1.0},
    "seanet.norm_params": {},
    "seanet.disable_norm_outer_blocks": 0,
    "seanet.decoder.trim_right_ratio": 1.0,
    "seanet.decoder.final_activation": None,
}
# What changes nothing in a trained model, or is read by name below.
_OTHER = {
    *("encodec.sample_rate", "encodec.channels", "encodec.causal", "encodec.renorm"),
    *("seanet.channels", "seanet.dilation_base", "seanet.encoder", "seanet.decoder"),
    *("seanet.decoder.final_activation_params", "rvq.n_q", "rvq.q_dropout", "rvq.decay"),
    *("rvq.kmeans_init", "rvq.kmeans_iters", "rvq.threshold_ema_dead_code"),
    *("rvq.orthogonal_reg_weight", "rvq.orthogonal_reg_active_codes_only"),
    "rvq.orthogonal_reg_max_codes",
}
_MOST_REFERENCES = 16  # in a chain: a configuration has two
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2


class _Node:
    """A node of a pickled omegaconf configuration: holds its state and runs nothing."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        content = _unwrapped(self)
        return "..." if isinstance(content, dict | list | _Node) else _SHORT.repr(content)


def _plain_dict(_factory: Any = None) -> dict[Any, Any]:
    """What stands for a pickled defaultdict."""
    return {}


_OMEGACONF = (
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *("omegaconf.nodes.AnyNode", "omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
)
_TYPES = ("typing.Any", *(f"builtins.{name}" for name in ("dict", "list", "int", "float", "str")))
# Types are only named in a configuration, never called: _Node stands for those, too.
_HARMLESS: list[Any] = [
    *((_Node, name) for name in (*_OMEGACONF, *_TYPES)),
    (_plain_dict, "collections.defaultdict"),
]


def omegaconf_as_plain() -> AbstractContextManager[None]:
    """While it is entered, torch.load(weights_only=True) also reads omegaconf's configurations."""
    allow: Any = getattr(torch.serialization, "safe_globals", None)  # PyTorch 2.5 or newer
    return nullcontext() if allow is None else allow(_HARMLESS)


def is_audiocraft(content: Mapping[str, Any]) -> bool:
    """Whether `content`, of a checkpoint file, is audiocraft's."""
    return "xp.cfg" in content or ("pretrained" in content and "exported" in content)


def audiocraft_weights(content: Mapping[str, Any], path: Path) -> Any:
    """The state dict in a checkpoint of either kind, not looked into.

    It is `best_state`, as in audiocraft's own export and loader: the weights at the last
    validation, which runs with the averaged ones where there are such. A checkpoint that was told
    to keep other parts only may lack it; then the averaged weights come before the bare ones.
    Raises ValueError for a file that only names another model, and for one without weights.
    """
    if "pretrained" in content:
        raise ValueError(
            f"{path}: holds no weights, only the name {_SHORT.repr(content['pretrained'])} of the"
            " pretrained model that audiocraft would load: give that model's own files"
        )
    best = content.get("best_state")
    if isinstance(best, dict) and best:
        return best.get("model", best)
    ema = content.get("ema")
    averaged = ema.get("state") if isinstance(ema, dict) else None
    for parts in (averaged, content):
        if isinstance(parts, dict) and "model" in parts:
            return parts["model"]
    raise ValueError(f"{path}: an audiocraft checkpoint without best_state, ema or model")


def audiocraft_config(content: Mapping[str, Any], path: Path) -> ModelConfig:
    """The configuration in `xp.cfg`, which also decides the mode of padding.

    Its bandwidth is that of all codebooks; after training with quantiser dropout, which is with
    every number of codebooks, bandwidths are those of 2, 4, 8 codebooks and so on up to all, as in
    the published 24 kHz model. It is called as the known model that it is, else
    `audiocraft_24khz` by its sample rate. Raises ValueError for settings that our models lack.
    """
    if "xp.cfg" not in content:
        raise ValueError(f"{path}: an audiocraft checkpoint without its configuration xp.cfg")
    settings = _Settings(content["xp.cfg"], path)
    _refuse_unsupported(settings)
    values = {ours: settings.value(name, default) for name, (ours, default) in _FIELDS.items()}
    sample_rate = settings.value("encodec.sample_rate", 24000, required=True)
    n_q = settings.value("rvq.n_q", 8)
    try:
        config = ModelConfig(
            name=f"audiocraft_{sample_rate // 1000}khz",
            sample_rate=sample_rate,
            channels=settings.value("encodec.channels", 1, required=True),
            bandwidths=(1.0,),
            **values,
        )
        counts = _codebook_counts(n_q) if settings.value("rvq.q_dropout", False) else (n_q,)
        config = replace(config, bandwidths=tuple(_bandwidth(config, n) for n in counts))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: xp.cfg: {error}") from None
    for known in CONFIGS.values():
        if replace(known, name=config.name, pad_mode=config.pad_mode) == config:
            return replace(config, name=known.name)
    return config


def _codebook_counts(n_q: int) -> tuple[int, ...]:
    counts = {min(2**power, n_q) for power in range(1, max(n_q, 1).bit_length() + 1)}
    return tuple(sorted(counts))


def _bandwidth(config: ModelConfig, n_q: int) -> float:
    """kbps of `n_q` codebooks, in whole bits a second: such that they give these codebooks back."""
    bits = n_q * config.frame_rate * config.codebook_bits
    exact = bits / 1000
    # Times 1000, that may come out below `bits`, and a codebook would be lost.
    return exact if exact * 1000 >= bits else (bits + 1) / 1000


def _refuse_unsupported(settings: _Settings) -> None:
    expected = dict(_ONLY)
    if settings.value("seanet.n_residual_layers", 3) > 1:
        expected["seanet.dilation_base"] = 2
    expected["seanet.channels"] = settings.get("encodec.channels", settings.get("seanet.channels"))
    known = {*_FIELDS, *_ONLY, *_OTHER, "seanet.channels"}
    for name in settings.names("encodec", "seanet", "rvq"):
        if name not in known:
            raise settings.unsupported(name, "is unknown")
    for part in ("seanet.encoder", "seanet.decoder"):
        for name in settings.names(part):
            of_both = name.replace(part, "seanet")
            if name in known:
                continue
            if of_both not in known:
                raise settings.unsupported(name, "is unknown")
            expected[name] = settings.get(of_both)
    for name, only in expected.items():
        required = name in ("compression_model", "encodec.autoencoder", "encodec.quantizer")
        found = settings.get(name, None if required else only)
        if isinstance(only, dict) and isinstance(found, dict):
            found = {**only, **{key: settings.get(f"{name}.{key}") for key in found}}
        if found != only:
            raise settings.unsupported(name, f"is not supported, only {only!r}")


class _Settings:
    """An audiocraft configuration, looked up by dotted names, its references `${...}` resolved.

    Of what others wrote, only what is asked for is looked at, and little at a time: containers may
    hold themselves, or the same part a million times.
    """

    def __init__(self, source: Any, path: Path) -> None:
        self._path = path
        self._root = _parsed(source, path) if isinstance(source, str) else _unwrapped(source)
        if not isinstance(self._root, dict):
            raise ValueError(f"{path}: xp.cfg is no configuration of audiocraft")

    def unsupported(self, name: str, reason: str) -> ValueError:
        """The error that the setting `name` is not what it must be."""
        return ValueError(f"{self._path}: {name} = {_SHORT.repr(self.get(name))} {reason}")

    def names(self, *parts: str) -> list[str]:
        """The dotted names of all settings below `parts`; none below what is not there or empty."""
        below = ((part, self.get(part)) for part in parts)
        return [f"{part}.{key}" for part, found in below for key in _keys(found)]

    def value(self, name: str, default: Any, required: bool = False) -> Any:
        """The setting `name` as the type of `default`, which it has where it is not set.

        Raises ValueError where it has another type, or is required and not set.
        """
        found = self.get(name, _MISSING)
        if found is _MISSING and not required:
            return default
        if found is _MISSING:
            raise ValueError(f"{self._path}: xp.cfg lacks {name}")
        if isinstance(found, list):
            found = [self._resolved(_unwrapped(item), name, 0) for item in found]
        if isinstance(found, dict) or (
            isinstance(found, list) and not all(isinstance(item, int) for item in found)
        ):
            raise self.unsupported(name, "is not supported")
        return typed(found, default, f"{self._path}: {name}")

    def get(self, name: str, default: Any = None) -> Any:
        """What is set under `name`, of any type, or `default`."""
        return self._get(name, default, 0)

    def _get(self, name: str, default: Any, references: int) -> Any:
        found = self._root
        for key in name.split("."):
            if not isinstance(found, dict) or key not in found:
                return default
            found = self._resolved(_unwrapped(found[key]), name, references)
        return found

    def _resolved(self, value: Any, name: str, references: int) -> Any:
        """`value`, or what it refers to."""
        if not isinstance(value, str) or ("${" not in value and value != "???"):
            return value
        match = re.fullmatch(r"\$\{(\w[\w.]*)\}", value)
        found = _MISSING
        if match is not None and references < _MOST_REFERENCES:
            found = self._get(match[1], _MISSING, references + 1)
        if found is _MISSING:
            raise ValueError(f"{self._path}: {name} = {value[:100]} cannot be resolved")
        return found


_MISSING: Any = object()


def _keys(found: Any) -> list[str]:
    return [str(key) for key in found] if isinstance(found, dict) else []


def _unwrapped(value: Any) -> Any:
    """The plain value, list or dict in an omegaconf node."""
    if not isinstance(value, _Node):
        return value
    state = value.state if isinstance(value.state, dict) else {}
    content = state.get("_content", state.get("_val"))
    return None if isinstance(content, _Node) else content


def _parsed(text: str, path: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise ValueError(
            f"{path}: its configuration is YAML, and reading it needs `pip install pyyaml`"
        ) from None
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: xp.cfg is not YAML ({reason})") from None
