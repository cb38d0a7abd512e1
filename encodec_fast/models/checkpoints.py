"""Checkpoints of other projects and of our trainer, read into our models.

Understood: Meta's released `.th` state dicts (by file or by name), folders that transformers saved
(config.json with model.safetensors or pytorch_model.bin), audiocraft's exports and training
checkpoints, and checkpoints of our trainer. Files are only ever read as tensors and plain values,
never as code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encodec_fast.models.audiocraft_checkpoint import (
    EXPORTED_FILE,
    audiocraft_config,
    audiocraft_weights,
    is_audiocraft,
    omegaconf_as_plain,
)
from encodec_fast.models.config import CONFIGS, ModelConfig
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.lm import LanguageModel
from encodec_fast.models.transformers_config import read_transformers_config

RELEASE_URL = "https://dl.fbaipublicfiles.com/encodec/v0/"
RELEASED = {
    "encodec_24khz": "encodec_24khz-d7cc33bc.th",
    "encodec_48khz": "encodec_48khz-7e698e3e.th",
    "encodec_lm_24khz": "encodec_lm_24khz-1608e3c0.th",
    "encodec_lm_48khz": "encodec_lm_48khz-7add9fc3.th",
}
LM_HEADS = 8
MOST_LAYERS = 1024  # of a kind: a configuration that others wrote may ask for any number
LM_CODECS = {"lm_24khz": "encodec_24khz", "lm_48khz": "encodec_48khz"}

_RENAMES = (
    (r"^(encoder|decoder)\.model\.", r"\1.layers."),
    (r"\.conv(tr)?\.conv(tr)?\.", ".conv."),
    (r"\.conv(tr)?\.norm\.", ".norm."),
    (r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
    (r"\.weight_g$", ".parametrizations.weight.original0"),
    (r"\.weight_v$", ".parametrizations.weight.original1"),
)


def load_checkpoint(source: str | Path, config: str | ModelConfig | None = None) -> EncodecModel:
    """The codec model of a checkpoint, float32, in eval mode.

    source: a released model's name (downloaded), a file or a folder. config: a configuration or
    its name; without it, it is taken from the checkpoint, the file name or the weights' shapes.
    With a name, the mode of padding is the checkpoint's where it has a configuration of its own.
    Raises FileNotFoundError for a missing file and ValueError, which names the file, for anything
    that is not a complete, finite checkpoint of the configuration.
    """
    path = _locate(source)
    if path.is_dir():
        path = _weights_file(path)
    content = _read(path)
    weights = _state_dict(_weights(content, path), path)
    own = None if isinstance(config, ModelConfig) else _stored_config(content, path)
    state = {_rename(key): value for key, value in weights.items()}
    model = _without_memory(_choose_config(config, own, state, path), path)
    _fill(model, state, path, assign=True)
    return model.eval()


def load_language_model(
    source: str | Path, config: str | ModelConfig | None = None
) -> LanguageModel:
    """The language model of a state dict with Meta's key names, float32, in eval mode.

    source: a released model's name (downloaded) or a file. config: the codec's configuration or its
    name, taken from the file name where possible. Width and layers are those of the weights, which
    do not tell the heads: there are 8, as in the released models. Raises as `load_checkpoint` does.
    """
    path = _locate(source)
    if config is None:
        named = [codec for part, codec in LM_CODECS.items() if part in path.name]
        if not named:
            raise ValueError(f"{path}: give the codec's config, the file name does not tell it")
        config = named[0]
    state = _state_dict(_read(path), path)
    layers = {key.split(".")[2] for key in state if key.startswith("transformer.layers.")}
    embedding = state.get("emb.0.weight")
    dim = 200 if embedding is None or embedding.dim() != 2 else embedding.shape[1]
    if dim < 4 or dim % LM_HEADS or dim % 2:
        raise ValueError(f"{path}: does not fit the model: no {LM_HEADS} heads in {dim} dimensions")
    # Without memory until the weights turn out to have these shapes.
    with torch.device("meta"):
        model = LanguageModel(_config(config, path), dim, LM_HEADS, len(layers))
    _fill(model, state, path, assign=True)
    return model.eval()


def _locate(source: str | Path) -> Path:
    """The file or folder that `source` names; released models are downloaded once."""
    path = Path(source)
    if str(source) in RELEASED and not path.exists():
        path = Path(torch.hub.get_dir()) / "checkpoints" / RELEASED[str(source)]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            checksum = path.stem.rsplit("-")[-1]
            try:
                torch.hub.download_url_to_file(RELEASE_URL + path.name, str(path), checksum)
            except RuntimeError as error:  # what torch raises for a wrong checksum
                raise ValueError(f"{source}: the download is damaged ({error})") from None
    if not path.exists():
        known = ", ".join(RELEASED)
        raise FileNotFoundError(f"{source}: no such file, folder or released model ({known})")
    return path


def _weights_file(folder: Path) -> Path:
    names = ("model.safetensors", "pytorch_model.bin")
    # A folder of MusicGen or AudioGen holds the weights of a language model, too.
    for name in (EXPORTED_FILE, *names):
        if (folder / name).exists():
            return folder / name
    raise ValueError(f"{folder}: neither {' nor '.join(names)} nor {EXPORTED_FILE} is there")


def _check_checksum(path: Path) -> None:
    """Compare with the sha256 prefix in a name such as `encodec_24khz-d7cc33bc.th`."""
    match = re.fullmatch(r".*-([0-9a-f]{8,64})", path.stem)
    if match is None:
        return
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if not found.startswith(match[1]):
        raise ValueError(
            f"{path}: damaged, its sha256 begins with {found[: len(match[1])]}, not {match[1]}"
        )


def _read(path: Path) -> dict[str, Any]:
    """The dictionary in a file of tensors and plain values."""
    _check_checksum(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        with omegaconf_as_plain():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise ValueError(f"{path}: reading it needs the package safetensors") from None
    except Exception as error:  # a damaged or foreign file can fail anywhere in the unpickler
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if foreign := re.search(r"Unsupported global: GLOBAL (\S+)", str(error)):
            reason = (
                f"it holds a {foreign[1]}, only tensors and plain values are read; of an audiocraft"
                " training checkpoint, audiocraft.utils.export.export_encodec writes such a file"
            )
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: holds no state dict")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(f"{path}: not a state dict, {key!r} is a {type(value).__name__}")
    return content


def _weights(content: dict[str, Any], path: Path) -> Any:
    """What should be the state dict in a file of any kind."""
    if is_audiocraft(content):
        return audiocraft_weights(content, path)
    return content.get("average", content.get("model", content))  # our trainer's, or bare


def _rename(key: str) -> str:
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def _stored_config(content: dict[str, Any], path: Path) -> ModelConfig | None:
    """The configuration that a checkpoint has in or beside it, None where there is none."""
    if is_audiocraft(content):
        return audiocraft_config(content, path)
    if "average" in content or "model" in content:
        return _own_config(content["config"], path) if "config" in content else None
    described = path.with_name("config.json")
    if path.suffix in (".safetensors", ".bin") and described.exists():
        return read_transformers_config(described)
    return None


def _own_config(stored: object, path: Path) -> ModelConfig:
    """The configuration that our trainer stored, as a dictionary of its fields."""
    names = {field.name for field in fields(ModelConfig)}
    if not isinstance(stored, dict) or not set(stored) <= names:
        raise ValueError(f"{path}: holds no configuration of this version's trainer")
    try:
        return ModelConfig(**stored)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None


def _config(config: str | ModelConfig, path: Path) -> ModelConfig:
    if isinstance(config, ModelConfig):
        return config
    if config not in CONFIGS:
        raise ValueError(f"{path}: config {config!r} is unknown, use one of {', '.join(CONFIGS)}")
    return CONFIGS[config]


def _choose_config(
    config: str | ModelConfig | None,
    own: ModelConfig | None,
    state: Mapping[str, Tensor],
    path: Path,
) -> ModelConfig:
    """config: asked for; own: what the checkpoint says."""
    if config is not None:
        asked = _config(config, path)
        return replace(asked, pad_mode=own.pad_mode) if own is not None else asked
    if own is not None:
        return own
    for name, known in CONFIGS.items():
        if name in path.name:
            return known
    shapes = {key: value.shape for key, value in state.items()}
    for known in CONFIGS.values():
        if shapes == _shapes(known):
            return known
    raise ValueError(
        f"{path}: its {len(state)} weights are those of no known model; give its config"
        f" (one of {', '.join(CONFIGS)}, or a ModelConfig)"
    )


def _shapes(config: ModelConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        state = EncodecModel(config).state_dict()
    return {key: value.shape for key, value in state.items()}


def _without_memory(config: ModelConfig, path: Path) -> EncodecModel:
    """The model, whose tensors have no memory until `_fill` finds that the weights have their
    shapes: a configuration that others wrote may ask for any size."""
    parts = (config.n_codebooks, config.n_residual_layers, config.lstm_layers, len(config.ratios))
    if max(parts) > MOST_LAYERS:
        raise ValueError(f"{path}: no model can be made that has {max(parts)} layers of a kind")
    try:
        with torch.device("meta"):
            return EncodecModel(config)
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ValueError(
            f"{path}: no model of this configuration can be made ({str(error).splitlines()[0]})"
        ) from None


def _fill(model: nn.Module, state: Mapping[str, Tensor], path: Path, assign: bool = False) -> None:
    """Load a complete and finite state dict, or raise one ValueError with the first few faults.
    assign: the model's own tensors have no memory."""
    expected = model.state_dict()
    faults = [f"missing {key}" for key in expected if key not in state]
    faults += [f"unexpected {key}" for key in state if key not in expected]
    for key, value in state.items():
        if key in expected and value.shape != expected[key].shape:
            faults.append(f"{key} has shape {list(value.shape)}, not {list(expected[key].shape)}")
        elif not torch.isfinite(value).all():
            faults.append(f"{key} holds NaN or infinite values")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ValueError(f"{path}: does not fit the model: {'; '.join(faults[:3])}{more}")
    model.load_state_dict({key: value.float() for key, value in state.items()}, assign=assign)
