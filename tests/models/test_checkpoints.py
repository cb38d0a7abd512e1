"""Reading checkpoints: every known layout, and one clear error for everything else."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import CAUSAL, SEGMENTED
from torch import Tensor

from encodec_fast.models.checkpoints import load_checkpoint, load_language_model
from encodec_fast.models.config import CONFIGS, ModelConfig
from encodec_fast.models.encodec import EncodecModel
from encodec_fast.models.lm import LanguageModel
from encodec_fast.models.transformers_config import read_transformers_config

CAUSAL_SMALL = replace(CAUSAL, bandwidths=(1.5, 3.0))
SEGMENTED_SMALL = replace(SEGMENTED, bandwidths=(3.0,))
State = dict[str, Tensor]


def meta_names(state: State) -> State:
    """A state dict under the key names of the released `.th` files."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in (
            (r"^(encoder|decoder)\.layers\.", r"\1.model."),
            (r"\.parametrizations\.weight\.original0$", ".weight_g"),
            (r"\.parametrizations\.weight\.original1$", ".weight_v"),
            (r"^quantizer\.layers\.(\d+)\.codebook\.", r"quantizer.vq.layers.\1._codebook."),
            (r"(?<!_)\.conv\.(weight|bias)", r".conv.conv.\1"),
            (r"\.norm\.(weight|bias)$", r".conv.norm.\1"),
        ):
            key = re.sub(pattern, replacement, key)
        match = re.match(r"decoder\.model\.(\d+)\.conv\.(conv|norm)\.(.*)", key)
        if match and int(match[1]) in (3, 6, 9, 12):
            key = f"decoder.model.{match[1]}.convtr.{match[2].replace('conv', 'convtr')}.{match[3]}"
        renamed[key] = value
    return renamed


@pytest.fixture(scope="module")
def trained() -> EncodecModel:
    """A small model with filled codebooks and buffers, in eval mode."""
    torch.manual_seed(7)
    model = EncodecModel(CAUSAL_SMALL).train()
    model.quantizer(model.encoder(torch.randn(4, 1, 6400)), model.config.n_codebooks)
    return model.eval()


@pytest.fixture
def state(trained: EncodecModel) -> State:
    return {key: value.clone() for key, value in trained.state_dict().items()}


def assert_equal(found: EncodecModel, expected: EncodecModel) -> None:
    assert found.config == expected.config and not found.training
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("config", [CAUSAL_SMALL, SEGMENTED_SMALL], ids=["causal", "segmented"])
def test_meta_state_dict(config: ModelConfig, tmp_path: Path) -> None:
    torch.manual_seed(8)
    model = EncodecModel(config)
    renamed = meta_names(model.state_dict())
    assert "decoder.model.3.convtr.convtr.bias" in renamed
    assert "encoder.model.1.block.1.conv.conv.bias" in renamed
    assert "quantizer.vq.layers.0._codebook.embed" in renamed
    torch.save(renamed, tmp_path / "model.th")
    assert_equal(load_checkpoint(tmp_path / "model.th", config), model.eval())


def test_trainer_checkpoint_carries_its_configuration(
    trained: EncodecModel, state: State, tmp_path: Path
) -> None:
    path = tmp_path / "last.pt"
    raw = {key: value + 1 for key, value in state.items()}
    torch.save({"config": asdict(CAUSAL_SMALL), "model": raw, "average": state, "step": 1}, path)
    assert_equal(load_checkpoint(path), trained)
    torch.save({"config": asdict(CAUSAL_SMALL), "model": state}, path)
    assert_equal(load_checkpoint(path), trained)


@pytest.mark.parametrize(
    "name",
    [
        *("encodec_48khz", "stereo_48khz", "stereo_48khz_large", "nano_24khz"),
        *("encodec_32khz", "encodec_16khz"),
    ],
)
def test_configuration_from_the_shapes(name: str, tmp_path: Path) -> None:
    model = EncodecModel(CONFIGS[name])
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    assert load_checkpoint(tmp_path / "weights.pt").config == CONFIGS[name]


def test_half_precision_becomes_float32(
    trained: EncodecModel, state: State, tmp_path: Path
) -> None:
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "half.pt")
    model = load_checkpoint(tmp_path / "half.pt", CAUSAL_SMALL)
    assert all(value.dtype == torch.float32 for value in model.state_dict().values())


def _drop(state: State) -> State:
    del state["encoder.layers.0.conv.bias"]
    return state


def _add(state: State) -> State:
    return {**state, "encoder.layers.99.weight": torch.zeros(1)}


def _reshape(state: State) -> State:
    return {**state, "quantizer.layers.1.codebook.embed": torch.zeros(16, 9)}


def _poison(state: State) -> State:
    state["decoder.layers.0.conv.bias"][2] = float("nan")
    return state


def _empty(state: State) -> State:
    return {}


def _nested(state: State) -> dict[str, Any]:
    return {**state, "extra": {"a": 1}}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, r"missing encoder\.layers\.0\.conv\.bias"),
        (_add, r"unexpected encoder\.layers\.99\.weight"),
        (_reshape, r"codebook\.embed has shape \[16, 9\], not \[16, 8\]"),
        (_poison, r"decoder\.layers\.0\.conv\.bias holds NaN"),
        (_empty, "no state dict"),
        (_nested, "'extra' is a dict"),
    ],
)
def test_damaged_state_dicts(damage: Any, message: str, state: State, tmp_path: Path) -> None:
    torch.save(damage(state), tmp_path / "bad.th")
    with pytest.raises(ValueError, match=message) as error:
        load_checkpoint(tmp_path / "bad.th", CAUSAL_SMALL)
    assert "bad.th" in str(error.value) and "\n" not in str(error.value)


def test_many_faults_are_counted(state: State, tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "bad.th")
    with pytest.raises(ValueError, match=rf"and {len(state) + 1 - 3} more$"):
        load_checkpoint(tmp_path / "bad.th", CAUSAL_SMALL)


@pytest.mark.parametrize("name", ["bad.th", "bad.safetensors"])
@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x02garbage", b"PK\x03\x04" + bytes(50)])
def test_files_that_are_no_checkpoints(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name}: not a readable checkpoint"):
        load_checkpoint(tmp_path / name, CAUSAL_SMALL)


def test_truncated_files(state: State, tmp_path: Path) -> None:
    path = tmp_path / "cut.th"
    torch.save(state, path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"cut\.th: not a readable checkpoint"):
            load_checkpoint(path, CAUSAL_SMALL)


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.target,)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    torch.save({"x": Malicious(tmp_path / "owned")}, tmp_path / "evil.th")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / "evil.th", CAUSAL_SMALL)
    assert not (tmp_path / "owned").exists()


def test_a_list_is_no_state_dict(tmp_path: Path) -> None:
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list"):
        load_checkpoint(tmp_path / "list.pt", CAUSAL_SMALL)


def test_unknown_weights_ask_for_a_configuration(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"no known model; give its config .*nano_24khz"):
        load_checkpoint(tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="config 'encodec_96khz' is unknown"):
        load_checkpoint(tmp_path / "weights.pt", "encodec_96khz")


def test_checksum_in_the_name(trained: EncodecModel, state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "x")
    digest = hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
    good = (tmp_path / "x").rename(tmp_path / f"model-{digest[:8]}.th")
    assert_equal(load_checkpoint(good, CAUSAL_SMALL), trained)
    bad = good.rename(tmp_path / "model-00000000.th")
    with pytest.raises(ValueError, match=f"sha256 begins with {digest[:8]}, not 00000000"):
        load_checkpoint(bad, CAUSAL_SMALL)


def test_a_named_configuration_has_the_padding_that_the_folder_says(tmp_path: Path) -> None:
    state = EncodecModel(CONFIGS["nano_24khz"]).state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    config = {"model_type": "encodec", "pad_mode": "reflect"}
    assert load_checkpoint(tmp_path, "nano_24khz").config == CONFIGS["nano_24khz"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = load_checkpoint(tmp_path, "nano_24khz").config
    assert found == replace(CONFIGS["nano_24khz"], pad_mode="reflect")
    assert load_checkpoint(tmp_path, CONFIGS["nano_24khz"]).config == CONFIGS["nano_24khz"]


def test_missing_files_name_the_released_models(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="encodec_48khz"):
        load_checkpoint(tmp_path / "nothing.th")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text('{"model_type": "encodec"}')
    with pytest.raises(ValueError, match=r"neither model\.safetensors nor"):
        load_checkpoint(tmp_path / "folder")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "not the configuration of an EncodecModel"),
        ('{"model_type": "dac"}', "not the configuration of an EncodecModel"),
        ('{"model_type": "encodec", "codebook_dim": 64}', "codebook_dim = 64 is not supported"),
        ('{"model_type": "encodec", "trim_right_ratio": 0.5}', "trim_right_ratio = 0.5"),
        ('{"model_type": "encodec", "norm_type": "batch_norm"}', "norm must be one of"),
        ('{"model_type": "encodec", "upsampling_ratios": 8}', "upsampling_ratios = 8 is not"),
        ('{"model_type": "encodec", "num_filters": "x"}', "num_filters = 'x' is not supported"),
    ],
)
def test_unsupported_transformers_configurations(
    content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_transformers_config(tmp_path / "config.json")


def test_published_transformers_configurations(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"model_type": "encodec"}))
    assert read_transformers_config(path) == CONFIGS["encodec_24khz"]
    stereo = {
        "model_type": "encodec",
        "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
        "sampling_rate": 48000,
        "audio_channels": 2,
        "normalize": True,
        "chunk_length_s": 1.0,
        "overlap": 0.01,
        "norm_type": "time_group_norm",
        "use_causal_conv": False,
    }
    path.write_text(json.dumps(stereo))
    assert read_transformers_config(path) == CONFIGS["encodec_48khz"]
    musicgen = {
        "model_type": "encodec",
        "target_bandwidths": [2.2],
        "sampling_rate": 32000,
        "codebook_dim": 128,
        "codebook_size": 2048,
        "num_filters": 64,
        "upsampling_ratios": [8, 5, 4, 4],
        "pad_mode": "reflect",
        "use_causal_conv": False,
        "use_conv_shortcut": False,
    }
    path.write_text(json.dumps(musicgen))
    assert read_transformers_config(path) == CONFIGS["encodec_32khz"]
    path.write_text(json.dumps({"model_type": "encodec", "use_conv_shortcut": False}))
    config = read_transformers_config(path)
    assert config.true_skip and config.name == tmp_path.name


def test_language_model_checkpoints(tmp_path: Path) -> None:
    model = LanguageModel(replace(CONFIGS["encodec_24khz"]))
    torch.save(model.state_dict(), tmp_path / "encodec_lm_24khz.th")
    loaded = load_language_model(tmp_path / "encodec_lm_24khz.th")
    assert loaded.config == CONFIGS["encodec_24khz"] and not loaded.training
    indices = torch.randint(0, 1025, (1, 32, 3))
    assert torch.equal(loaded(indices)[0], model.eval()(indices)[0])
    unnamed = (tmp_path / "encodec_lm_24khz.th").rename(tmp_path / "lm.th")
    with pytest.raises(ValueError, match="give the codec's config"):
        load_language_model(unnamed)
    with pytest.raises(ValueError, match=r"unexpected emb\.16\.weight"):
        load_language_model(unnamed, "encodec_48khz")


def test_a_language_model_has_the_size_of_its_weights(tmp_path: Path) -> None:
    config = replace(CAUSAL, bandwidths=(1.5, 3.0))
    small = LanguageModel(config, dim=16, heads=8, layers=2).eval()
    torch.save({key: value.half() for key, value in small.state_dict().items()}, tmp_path / "lm.th")
    loaded = load_language_model(tmp_path / "lm.th", config)
    assert len(loaded.transformer.layers) == 2
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, small.state_dict()[key].half().float())
    indices = torch.randint(0, 17, (1, 3, 5))
    assert loaded(indices)[0].shape == (1, 16, 3, 5)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda s: s.pop("transformer.layers.1.norm1.bias"), "missing transformer.layers.1.norm1"),
        (lambda s: s.pop("emb.0.weight"), "missing emb.0.weight"),
        (lambda s: s["linears.1.bias"].fill_(torch.nan), "linears.1.bias holds NaN"),
        (lambda s: s.update({"emb.0.weight": torch.zeros(17, 20)}), "no 8 heads in 20 dimensions"),
        (lambda s: s.update({"emb.0.weight": torch.zeros(17, 0)}), "no 8 heads in 0 dimensions"),
        (lambda s: s.update({"emb.0.weight": torch.zeros(1, 1 << 20)}), "has shape"),
        (lambda s: s.update({"transformer.layers.9999": torch.zeros(1)}), "missing"),
        (lambda s: s.update({"more": torch.zeros(1)}), "unexpected more"),
    ],
)
def test_damaged_language_models(spoil: Any, match: str, tmp_path: Path) -> None:
    """An absurd width must not ask for memory."""
    config = replace(CAUSAL, bandwidths=(1.5, 3.0))
    state = LanguageModel(config, dim=16, heads=8, layers=2).state_dict()
    spoil(state)
    torch.save(state, tmp_path / "lm.th")
    with pytest.raises(ValueError, match=match):
        load_language_model(tmp_path / "lm.th", config)
