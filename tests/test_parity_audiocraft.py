"""Our PyTorch model against audiocraft's own, full size: equal codes, equal audio, its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agreement import snr_db
from signals import hard_signals, program_material

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="the peers need the test extra")

# Behind the skip, because what follows imports torch and the peers.
from audiocraft_peer import (  # noqa: E402
    BLANK,
    FIT_SECONDS,
    MIN_DISTINCT_CODES,
    RECIPES,
    SMALL,
    AudiocraftPeer,
    build_audiocraft,
    build_audiocraft_peer,
    import_audiocraft,
    settings,
)
from torch import Tensor  # noqa: E402

from encodec_fast.models.checkpoints import load_checkpoint  # noqa: E402

LENGTHS = (1, 2, 319, 320, 321, 640, 641, 32001)
MIN_SNR_DB = 90


@pytest.fixture(scope="module", params=RECIPES)
def craft(request: pytest.FixtureRequest) -> AudiocraftPeer:
    import_audiocraft()
    return build_audiocraft_peer(settings(request.param), FIT_SECONDS[request.param])


def material(peer: AudiocraftPeer, seconds: float) -> Tensor:
    rate = peer.ours.config.sample_rate
    return torch.from_numpy(program_material("test", rate, 1, seconds))[None]


def assert_same(peer: AudiocraftPeer, wav: Tensor, bandwidth: float | None = None) -> None:
    n_q = peer.ours.config.n_q(bandwidth)
    expected = peer.encode(wav, n_q)
    with torch.inference_mode():
        frames = peer.ours.encode(wav, bandwidth)
        ((codes, scale),) = frames
        assert scale is None and torch.equal(codes, expected)
        audio, found = peer.theirs.decode(expected), peer.ours.decode(frames)
        whole = peer.theirs(wav).x
    assert audio.abs().max() > 0
    assert snr_db(audio.numpy(), found.numpy()) > MIN_SNR_DB
    assert snr_db(whole.numpy(), found[..., : wav.shape[-1]].numpy()) > MIN_SNR_DB


def test_the_codes_vary(craft: AudiocraftPeer) -> None:
    codes = craft.encode(material(craft, 18.0))
    assert min(len(row.unique()) for row in codes[0, :4]) >= MIN_DISTINCT_CODES


def test_equals_audiocraft(craft: AudiocraftPeer) -> None:
    wav = material(craft, 4.0)
    for bandwidth in craft.ours.config.bandwidths:
        assert_same(craft, wav, bandwidth)
    for length in LENGTHS:
        assert_same(craft, wav[..., -length:])


def test_hard_signals(craft: AudiocraftPeer) -> None:
    for wav in hard_signals(1).values():
        assert_same(craft, torch.from_numpy(wav)[None])


def test_latents_of_codes(craft: AudiocraftPeer) -> None:
    codes = craft.encode(material(craft, 1.0))
    with torch.inference_mode():
        expected = craft.theirs.decode_latent(codes)
        assert torch.equal(craft.ours.quantizer.decode(codes.transpose(0, 1)), expected)


def training_checkpoint(theirs: Any, found: dict[str, Any], path: Path) -> None:
    """Write what audiocraft's solver does, with other weights where the best ones are not."""
    from collections import defaultdict

    from omegaconf import OmegaConf

    state = theirs.state_dict()
    other = {key: value + 1 for key, value in state.items()}
    averaged: dict[str, Any] = defaultdict(dict)
    averaged["model"].update(other)
    optimizer = torch.optim.Adam(theirs.parameters())
    config = OmegaConf.create(found)
    OmegaConf.set_struct(config, True)
    torch.save(
        {
            "history": [{"train": {"l1": 0.5}}],
            "xp.cfg": config,
            "xp.sig": "01ab",
            "best_state": {"model": state},
            "fsdp_best_state": {},
            "model": other,
            "optimizer": optimizer.state_dict(),
            "ema": {"state": averaged, "count": 3.5},
            "adv_losses": {"msstftd": {"optimizer": {}}},
        },
        path,
    )


def assert_weights(path: Path, peer: AudiocraftPeer) -> None:
    model = load_checkpoint(path)
    assert model.config == peer.ours.config and not model.training
    state = peer.ours.state_dict()
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # audiocraft's age
def test_its_files(craft: AudiocraftPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training checkpoint, and what audiocraft's own export and loader make of it."""
    from audiocraft.models.loaders import load_compression_model
    from audiocraft.utils.export import export_encodec, export_pretrained_compression_model

    training_checkpoint(craft.theirs, craft.settings, tmp_path / "checkpoint.th")
    assert_weights(tmp_path / "checkpoint.th", craft)
    # audiocraft 1.3 knows nothing of weights_only.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    exported = tmp_path / "musicgen" / "compression_state_dict.bin"
    export_encodec(tmp_path / "checkpoint.th", exported)
    again = load_compression_model(str(exported.parent))
    monkeypatch.undo()
    assert_weights(exported, craft)
    assert_weights(exported.parent, craft)
    wav = material(craft, 1.0)
    with torch.inference_mode():
        assert torch.equal(again.encode(wav)[0], craft.ours.encode(wav)[0][0])
    export_pretrained_compression_model("facebook/encodec_32khz", exported)
    with pytest.raises(ValueError, match="only the name 'facebook/encodec_32khz'"):
        load_checkpoint(exported)


def test_one_blank_import_leaves_nothing_behind() -> None:
    import sys

    import_audiocraft()
    import_audiocraft()
    assert not [name for name in BLANK if type(sys.modules.get(name)).__name__ == "_Blank"]


@pytest.mark.parametrize(
    "changes",
    [
        {"seanet__pad_mode": "reflect"},
        {"seanet__pad_mode": "reflect", "seanet__causal": True},
        {"seanet__true_skip": False},
        {"seanet__lstm": 0},
        {"seanet__norm": "none", "seanet__compress": 1},
        {"seanet__n_residual_layers": 3},
        {"seanet__n_residual_layers": ..., "seanet__norm": ..., "seanet__lstm": ...},
        {"seanet__ratios": [4, 3], "seanet__kernel_size": 5, "seanet__last_kernel_size": 3},
        {"seanet__activation_params": {}, "seanet__decoder__final_activation": ...},
        {"seanet__encoder": {"n_filters": 4}},
        {"rvq__n_q": 6, "rvq__q_dropout": True, "rvq__bins": 32},
        {"rvq__n_q": ..., "rvq__bins": ...},
        {"channels": 2, "seanet__norm": "time_group_norm", "encodec__renormalize": True},
        {"encodec__renorm": {"anything": 1}},
    ],
    ids=lambda changes: ", ".join(f"{key}={value}" for key, value in changes.items()),
)
def test_settings_of_other_recipes(changes: dict[str, Any], tmp_path: Path) -> None:
    """Of the same settings, audiocraft builds a model of the same layers, codes and audio."""
    import_audiocraft()
    from omegaconf import OmegaConf

    found = settings("audiogen_16khz", **{**SMALL, **changes})
    torch.manual_seed(3)
    theirs = build_audiocraft(found)
    for layer in theirs.quantizer.vq.layers:
        layer._codebook.embed.normal_(std=0.1)
    text = OmegaConf.to_yaml(OmegaConf.create(found))
    path = tmp_path / "compression_state_dict.bin"
    torch.save({"best_state": theirs.state_dict(), "xp.cfg": text, "exported": True}, path)
    ours = load_checkpoint(path)
    assert ours.config.n_codebooks == theirs.total_codebooks
    wav = 0.3 * torch.randn(2, theirs.channels, 2001)
    with torch.inference_mode():
        expected, scale = theirs.encode(wav)
        ((codes, our_scale),) = ours.encode(wav)
        assert torch.equal(codes, expected)
        assert (scale is None) == (our_scale is None)
        audio = theirs.decode(expected, scale).numpy()
        assert snr_db(audio, ours.decode([(codes, our_scale)]).numpy()) > MIN_SNR_DB
