"""audiocraft's checkpoints: what their configurations become, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from audiocraft_peer import RECIPES, SMALL, changed, settings
from peers import fb_state_dict

from encodec_fast import cli
from encodec_fast.codec import Codec
from encodec_fast.models.audiocraft_checkpoint import audiocraft_config
from encodec_fast.models.checkpoints import load_checkpoint
from encodec_fast.models.config import CONFIGS, PAD_MODES, ModelConfig
from encodec_fast.models.encodec import EncodecModel

yaml = pytest.importorskip("yaml")
EXPORTED = "compression_state_dict.bin"
PATH = Path("checkpoint.th")


def config_of(found: Any) -> ModelConfig:
    return audiocraft_config({"xp.cfg": found}, PATH)


def export(found: dict[str, Any], path: Path) -> EncodecModel:
    """Write a model of random weights as audiocraft exports it; returns ours."""
    torch.manual_seed(5)
    model = EncodecModel(config_of(found)).eval()
    for q in range(model.config.n_codebooks):
        model.quantizer.codebook(q).embed.normal_(std=0.3 / (q + 1))
    torch.save(
        {
            "best_state": fb_state_dict(model.state_dict()),
            "xp.cfg": yaml.safe_dump(found),
            "version": "1.3.0",
            "exported": True,
        },
        path,
    )
    return model


def assert_equal(found: EncodecModel, expected: EncodecModel) -> None:
    assert found.config == expected.config and not found.training
    theirs = expected.state_dict()
    assert found.state_dict().keys() == theirs.keys()
    assert all(torch.equal(value, theirs[key]) for key, value in found.state_dict().items())


def test_published_recipes() -> None:
    assert config_of(settings("audiogen_16khz")) == CONFIGS["encodec_16khz"]
    musicgen = config_of(settings("musicgen_32khz"))
    assert musicgen == replace(CONFIGS["encodec_32khz"], pad_mode="constant")
    base = config_of(settings("base_24khz"))
    published = replace(CONFIGS["encodec_24khz"], true_skip=True, pad_mode="constant")
    assert base == replace(published, name="audiocraft_24khz")
    assert yaml.safe_dump(settings("base_24khz")).count("${") >= 4
    assert config_of(yaml.safe_dump(settings("base_24khz"))) == base


@pytest.mark.parametrize("mode", PAD_MODES)
def test_the_checkpoint_decides_the_padding(mode: str, tmp_path: Path) -> None:
    """Whether or not the configuration is named."""
    audiogen = config_of(settings("audiogen_16khz", seanet__pad_mode=mode))
    assert audiogen == replace(CONFIGS["encodec_16khz"], pad_mode=mode)
    found = settings("musicgen_32khz", seanet__pad_mode=mode)
    name = config_of(found).name
    assert name == "encodec_32khz" and config_of(found).pad_mode == mode
    model = export(found, tmp_path / EXPORTED)
    assert_equal(load_checkpoint(tmp_path / EXPORTED), model)
    assert_equal(load_checkpoint(tmp_path / EXPORTED, name), model)
    told = replace(model.config, pad_mode="reflect", name="told")
    assert load_checkpoint(tmp_path / EXPORTED, told).config == told


@pytest.mark.parametrize(
    ("n_q", "bins", "counts"),
    [
        (1, 1024, [1]),
        (6, 1024, [2, 4, 6]),
        (8, 2048, [2, 4, 8]),
        (31, 128, [2, 4, 8, 16, 31]),  # 16.275 kbps * 1000 is below 16275 in floating point
    ],
)
def test_bandwidths_after_quantiser_dropout(n_q: int, bins: int, counts: list[int]) -> None:
    found = settings("base_24khz", rvq__n_q=n_q, rvq__bins=bins)
    config = config_of(found)
    assert [config.n_q(bandwidth) for bandwidth in config.bandwidths] == counts
    assert all(bandwidth == round(bandwidth, 3) for bandwidth in config.bandwidths)
    alone = config_of(changed(found, rvq__q_dropout=False))
    assert len(alone.bandwidths) == 1 and alone.n_codebooks == n_q


@pytest.mark.parametrize("recipe", RECIPES)
def test_exported_files_and_folders(recipe: str, tmp_path: Path) -> None:
    """A MusicGen's folder has a config.json and weights of another model beside the codec."""
    model = export(settings(recipe, **SMALL), tmp_path / EXPORTED)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "musicgen"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"a language model")
    assert_equal(load_checkpoint(tmp_path / EXPORTED), model)
    assert_equal(load_checkpoint(tmp_path), model)


def test_the_command_line_imports_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENCODEC_FAST_MODELS", str(tmp_path / "models"))
    (tmp_path / "codec").mkdir()
    model = export(settings("base_24khz", **SMALL), tmp_path / "codec" / EXPORTED)
    assert cli.main(["models", "import", str(tmp_path / "codec")]) == 0
    name = ["--name", "mine"]
    assert cli.main(["models", "import", str(tmp_path / "codec" / EXPORTED), *name]) == 0
    wav = 0.2 * torch.randn(1, 4001)
    with torch.inference_mode():
        expected = model.encode(wav[None])[0][0][0].numpy()
    for stored in ("audiocraft_24khz", "mine"):
        codec = Codec.load(stored)
        assert codec.name == stored and codec.bandwidths == model.config.bandwidths
        (codes,) = codec.encode(wav.numpy(), bandwidth=codec.bandwidths[-1]).codes
        assert np.mean(codes == expected) > 0.99


def test_a_pointer_to_another_model(tmp_path: Path) -> None:
    pointer = {"pretrained": "facebook/encodec_32khz", "exported": True, "version": "1.3.0"}
    torch.save(pointer, tmp_path / EXPORTED)
    with pytest.raises(ValueError, match=r"no weights, only the name 'facebook/encodec_32khz'"):
        load_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="no weights"):
        load_checkpoint(tmp_path / EXPORTED, "encodec_32khz")


def test_which_weights_of_a_training_checkpoint(tmp_path: Path) -> None:
    """The best ones; where they were not kept, the averaged ones, then the bare ones."""
    found = settings("base_24khz", **SMALL)
    model = export(found, tmp_path / EXPORTED)
    state = torch.load(tmp_path / EXPORTED)["best_state"]
    other = {key: value + 1 for key, value in state.items()}
    parts: dict[str, Any] = {"xp.cfg": found, "epoch": 3}
    for kept in (
        {"best_state": {"model": state}, "model": other, "ema": {"state": {"model": other}}},
        {"best_state": {}, "model": other, "ema": {"state": {"model": state}, "count": 2.0}},
        {"model": state, "ema": None},
    ):
        torch.save({**parts, **kept}, tmp_path / PATH)
        assert_equal(load_checkpoint(tmp_path / PATH), model)
    torch.save(parts, tmp_path / PATH)
    with pytest.raises(ValueError, match="without best_state, ema or model"):
        load_checkpoint(tmp_path / PATH)
    torch.save({"best_state": {"model": [state]}, **parts}, tmp_path / PATH)
    with pytest.raises(ValueError, match="no state dict"):
        load_checkpoint(tmp_path / PATH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compression_model": "dac"}, "compression_model = 'dac' is not supported, only 'encodec"),
        ({"compression_model": ...}, "compression_model = None"),
        ({"encodec": "none"}, r"encodec\.autoencoder = None is not supported, only 'seanet'"),
        ({"encodec__channels": ...}, r"xp\.cfg lacks encodec\.channels"),
        ({"encodec__quantizer": "no_quant"}, r"encodec\.quantizer = 'no_quant'"),
        ({"encodec__autoencoder": "unet"}, r"encodec\.autoencoder = 'unet'"),
        ({"encodec__sample_rate": ...}, r"xp\.cfg lacks encodec\.sample_rate"),
        ({"encodec__segment": 1.0}, r"encodec\.segment = 1\.0 is unknown"),
        ({"seanet__norm": "spectral_norm"}, "norm must be one of .* not 'spectral_norm'"),
        ({"seanet__norm": "time_group_norm"}, "cannot be causal"),
        ({"seanet__norm_params": {"eps": 1e-3}}, r"seanet\.norm_params = \{'eps': 0\.001\}"),
        ({"seanet__activation": "Snake"}, r"seanet\.activation = 'Snake' .* only 'ELU'"),
        ({"seanet__activation_params": {"alpha": 0.5}}, r"activation_params = \{'alpha': 0\.5\}"),
        ({"seanet__activation_params": {"a.b": 1}}, r"activation_params = \{'a\.b': 1\}"),
        ({"seanet__n_residual_layers": 3, "seanet__dilation_base": 3}, "dilation_base = 3 is not"),
        ({"seanet__disable_norm_outer_blocks": 2}, r"disable_norm_outer_blocks = 2"),
        ({"seanet__decoder__trim_right_ratio": 0.5}, r"trim_right_ratio = 0\.5 .* only 1\.0"),
        ({"seanet__decoder__final_activation": "Tanh"}, r"final_activation = 'Tanh'"),
        ({"seanet__decoder__n_filters": 64}, r"seanet\.decoder\.n_filters = 64 .* only 32"),
        ({"seanet__encoder": {"snake": 1}}, r"seanet\.encoder\.snake = 1 is unknown"),
        ({"seanet__channels": 2}, r"seanet\.channels = 2 is not supported, only 1"),
        ({"seanet__groups": 2}, r"seanet\.groups = 2 is unknown"),
        ({"seanet__pad_mode": "replicate"}, "pad_mode must be one of"),
        ({"seanet__ratios": 8}, r"seanet\.ratios = 8 is not supported"),
        ({"seanet__ratios": [8, [5]]}, r"seanet\.ratios = \[8, \[5\]\] is not supported"),
        ({"seanet__ratios": {"a": 1}}, r"seanet\.ratios = \{'a': 1\}"),
        ({"seanet__n_filters": "64"}, r"seanet\.n_filters = '64' is not supported"),
        ({"seanet__lstm": -1}, "lstm_layers must be at least 0"),
        ({"rvq__bins": 1000}, "codebook_size must be a power of two"),
        ({"rvq__n_q": 0}, "bandwidths must be above 0"),
        ({"rvq__codebook_dim": 8}, r"rvq\.codebook_dim = 8 is unknown"),
        ({"sample_rate": "???"}, r"\?\?\? cannot be resolved"),
        ({"seanet__causal": "${encodec.streaming}"}, r"seanet\.causal = \$\{encodec\.streaming\}"),
        ({"channels": "${seanet.channels}"}, "cannot be resolved"),
        ({"seanet__n_filters": "${oc.env:FILTERS}"}, r"\$\{oc\.env:FILTERS\} cannot be resolved"),
        ({"seanet__n_filters": "${.dimension}"}, "cannot be resolved"),
        ({"seanet__norm": "${a}_norm"}, r"seanet\.norm = \$\{a\}_norm cannot be resolved"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refused_settings(changes: dict[str, Any], message: str) -> None:
    found = settings("base_24khz", **changes)
    for source in (found, yaml.safe_dump(found)):
        with pytest.raises(ValueError, match=message) as error:
            config_of(source)
        assert str(error.value).startswith("checkpoint.th: ") and "\n" not in str(error.value)


def test_references_to_whole_sections() -> None:
    found = settings("base_24khz")
    there = {**found, "autoencoder": found["seanet"], "seanet": "${autoencoder}"}
    assert config_of(there) == config_of(found)
    width = changed(found, seanet__n_filters="${width}", seanet__ratios=["${width}", 4])
    config = config_of({**width, "width": 16})
    assert (config.n_filters, config.ratios) == (16, (16, 4))


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no configuration"),
        ("[1, 2]", "no configuration"),
        ("a: [", "not YAML"),
        ("a: 2001-99-99", "not YAML"),
        ("[" * 100000, "not YAML"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),
        (BOMB + "encodec: *a29", "compression_model"),
        (BOMB + "compression_model: *a29", "compression_model = "),
        (BOMB + "seanet: {n_residual_layers: *a29}", r"seanet\.n_residual_layers = "),
        ("compression_model: &a {b: *a}", "compression_model = "),
    ],
    ids=lambda value: value[-40:],
)
def test_hostile_configurations(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        config_of(text)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "changes",
    [
        {"rvq__n_q": 10**9},
        {"rvq__n_q": 10**400},
        {"seanet__n_residual_layers": 10**9},
        {"seanet__lstm": 10**9},
        {"seanet__ratios": [2] * 5000},
        {"seanet__ratios": [2] * 900},
        {"seanet__n_filters": 10**9},
        {"seanet__dimension": 10**30},
        {"seanet__kernel_size": 10**12},
    ],
    ids=lambda value: str(value)[:40],
)
def test_absurd_sizes_ask_for_no_memory(changes: dict[str, Any], tmp_path: Path) -> None:
    export(settings("base_24khz", **SMALL), tmp_path / EXPORTED)
    content = torch.load(tmp_path / EXPORTED)
    content["xp.cfg"] = settings("base_24khz", **{**SMALL, **changes})
    torch.save(content, tmp_path / EXPORTED)
    with pytest.raises(ValueError, match=EXPORTED):
        load_checkpoint(tmp_path)


def test_without_pyyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(settings("base_24khz", **SMALL), tmp_path / EXPORTED)
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(ValueError, match="needs `pip install pyyaml`"):
        load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path, config_of(settings("base_24khz", **SMALL)))


def test_foreign_objects_are_named(tmp_path: Path) -> None:
    torch.save({"xp.cfg": Path("a"), "best_state": {}}, tmp_path / PATH)
    with pytest.raises(ValueError, match=r"holds a pathlib\.\w+, only .*export_encodec"):
        load_checkpoint(tmp_path / PATH)


class Call:
    """Unpickling it would call `function`, which a configuration may name."""

    def __init__(self, function: Any, argument: Any) -> None:
        self.function, self.argument = function, argument

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return self.function, (self.argument,)


@pytest.mark.parametrize("function", [str, list, int, dict])
def test_types_that_configurations_name_are_not_called(function: Any, tmp_path: Path) -> None:
    """The text of these lists would fill any memory."""
    nested: list[Any] = []
    for _ in range(64):
        nested = [nested, nested]
    torch.save({"xp.cfg": Call(function, nested), "best_state": {}}, tmp_path / PATH)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_checkpoint(tmp_path / PATH)


def test_a_pickled_configuration_is_plain(tmp_path: Path) -> None:
    """Settings of omegaconf's own objects: equal, resolved, refused alike."""
    omegaconf = pytest.importorskip("omegaconf")
    found = settings("musicgen_32khz", **SMALL)
    model = export(found, tmp_path / EXPORTED)
    best = {"model": fb_state_dict(model.state_dict())}
    config = omegaconf.OmegaConf.create(found)
    torch.save({"xp.cfg": config, "best_state": best}, tmp_path / PATH)
    assert_equal(load_checkpoint(tmp_path / PATH), model)
    config.seanet.norm_params = {"eps": 0.5}
    torch.save({"xp.cfg": config, "best_state": best}, tmp_path / PATH)
    with pytest.raises(ValueError, match=r"norm_params = \{'eps': 0\.5\} is not supported"):
        load_checkpoint(tmp_path / PATH)
    torch.save({"xp.cfg": omegaconf.OmegaConf.create([1]), "best_state": best}, tmp_path / PATH)
    with pytest.raises(ValueError, match="no configuration"):
        load_checkpoint(tmp_path / PATH)
