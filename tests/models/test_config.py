"""The configurations' derived numbers, after the released models' tables."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from encodec_fast.models.config import CONFIGS, ModelConfig

CODEBOOKS = {
    "encodec_24khz": {1.5: 2, 3: 4, 6: 8, 12: 16, 24: 32},
    "encodec_48khz": {3: 2, 6: 4, 12: 8, 24: 16},
    "stereo_48khz": {3: 2, 6: 4, 12: 8, 24: 16},
    "stereo_48khz_large": {3: 2, 6: 4, 12: 8, 24: 16},
    "nano_24khz": {1.5: 2, 3: 4, 6: 8, 12: 16},
    "encodec_32khz": {2.2: 4},
    "encodec_16khz": {2.2: 4},
}


@pytest.mark.parametrize("name", CODEBOOKS)
def test_codebooks_of_every_bandwidth(name: str) -> None:
    config = CONFIGS[name]
    assert {bandwidth: config.n_q(bandwidth) for bandwidth in config.bandwidths} == CODEBOOKS[name]
    assert config.n_q() == config.n_codebooks == max(CODEBOOKS[name].values())
    assert config.codebook_bits == (11 if CODEBOOKS[name] == {2.2: 4} else 10)


def test_every_known_configuration_is_in_the_tables() -> None:
    assert set(CODEBOOKS) == set(CONFIGS)


@pytest.mark.parametrize(
    ("name", "hop", "frame_rate", "length", "stride"),
    [
        ("encodec_24khz", 320, 75, None, None),
        ("encodec_48khz", 320, 150, 48000, 47520),
        ("stereo_48khz", 320, 150, None, None),
        ("stereo_48khz_large", 320, 150, None, None),
        ("nano_24khz", 320, 75, None, None),
        ("encodec_32khz", 640, 50, None, None),
        ("encodec_16khz", 320, 50, None, None),
    ],
)
def test_rates_and_segments(
    name: str, hop: int, frame_rate: int, length: int | None, stride: int | None
) -> None:
    config = CONFIGS[name]
    assert (config.hop, config.frame_rate) == (hop, frame_rate)
    assert (config.segment_length, config.segment_stride) == (length, stride)


@pytest.mark.parametrize(
    ("config", "encoder", "decoder"),
    [
        (CONFIGS["encodec_24khz"], 7_425_792, 7_426_018),
        (replace(CONFIGS["encodec_24khz"], true_skip=True), 7_337_792, 7_338_018),
        (CONFIGS["encodec_32khz"], 28_441_984, 28_442_690),
        (CONFIGS["encodec_16khz"], 28_409_216, 28_409_922),
    ],
    ids=["encodec_24khz", "audiocraft's 24 kHz", "encodec_32khz", "encodec_16khz"],
)
def test_parameters_as_counted_in_the_released_models(
    config: ModelConfig, encoder: int, decoder: int
) -> None:
    torch = pytest.importorskip("torch")
    from encodec_fast.models.encodec import EncodecModel

    with torch.device("meta"):
        model = EncodecModel(config)
    assert sum(parameter.numel() for parameter in model.encoder.parameters()) == encoder
    assert sum(parameter.numel() for parameter in model.decoder.parameters()) == decoder
    assert not list(model.quantizer.parameters())


def test_shapes_tell_the_configurations_apart() -> None:
    torch = pytest.importorskip("torch")
    from encodec_fast.models.encodec import EncodecModel

    seen: dict[str, str] = {}
    for config in CONFIGS.values():
        with torch.device("meta"):
            state = EncodecModel(config).state_dict()
        shapes = str({key: list(value.shape) for key, value in state.items()})
        assert shapes not in seen, f"{config.name} has the shapes of {seen[shapes]}"
        seen[shapes] = config.name


@pytest.mark.parametrize("bandwidth", [0, 2, 24.0, -6, float("nan")])
def test_unknown_bandwidth_lists_the_supported_ones(bandwidth: float) -> None:
    with pytest.raises(ValueError, match=r"nano_24khz: use 1\.5, 3, 6, 12"):
        CONFIGS["nano_24khz"].n_q(bandwidth)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "layer_norm"}, "norm must be one of"),
        ({"pad_mode": "zero"}, "pad_mode must be one of"),
        ({"norm": "time_group_norm"}, "cannot be causal"),
        ({"codebook_size": 1000}, "power of two"),
        ({"codebook_size": 1 << 17}, "power of two from 2 to 65536, not 131072"),
        ({"codebook_size": -4}, "power of two"),
        ({"ratios": (0,)}, r"ratios must be one or more of at least 1, not \(0,\)"),
        ({"ratios": (8, -5, 4, 2)}, "ratios"),
        ({"ratios": ()}, "ratios"),
        ({"sample_rate": 0}, "sample_rate must be at least 1, not 0"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"dimension": -1}, "dimension must be at least 1"),
        ({"n_filters": 0}, "n_filters must be at least 1"),
        ({"n_filters": 1}, r"n_filters must be at least compress \(2\), not 1"),
        ({"kernel_size": 0}, "^kernel_size must be"),
        ({"last_kernel_size": 0}, "last_kernel_size must be"),
        ({"residual_kernel_size": 0}, "residual_kernel_size must be"),
        ({"compress": 0}, "compress must be at least 1"),
        ({"lstm_layers": -1}, "lstm_layers must be at least 0, not -1"),
        ({"n_residual_layers": -1}, "n_residual_layers must be at least 0"),
        ({"segment": 0.0}, "segment must be at least a sample long, not 0.0 s"),
        ({"segment": float("nan")}, "segment"),
        ({"overlap": 1.0}, "overlap must be a share from 0 to below 1, not 1.0"),
        ({"overlap": float("nan")}, "overlap"),
        ({"bandwidths": (6.0, 3.0)}, "rising order"),
        ({"bandwidths": ()}, "rising order"),
        ({"bandwidths": (3.0, 3.0)}, "rising order"),
        ({"bandwidths": (0.0, 3.0)}, "above 0 kbps"),
        ({"bandwidths": (3.0, float("inf"))}, "above 0 kbps"),
        ({"bandwidths": (float("nan"),)}, "above 0 kbps"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIGS["encodec_24khz"], **change)  # type: ignore[arg-type]


def test_layers_that_a_model_need_not_have() -> None:
    bare = replace(CONFIGS["encodec_24khz"], lstm_layers=0, n_residual_layers=0)
    assert bare.hop == 320


def test_config_does_not_import_torch() -> None:
    code = "import encodec_fast.models.config, sys; sys.exit('torch' in sys.modules)"
    # Not from the checkout, whose sources without the native core would come first.
    subprocess.run([sys.executable, "-c", code], cwd=sys.prefix, check=True)
