"""The entropy model's trainer: what it learns, for any codec, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chain_codes import CODEBOOKS, CODES, TINY, chain, settings, trainer
from recordings import write_corpus
from tiny import tiny_model

import encodec_fast
from encodec_fast.entropy_model import EntropyModel
from encodec_fast.models.export import export_model
from encodec_fast.models.lm import LanguageModel
from encodec_fast.training.code_data import CodedRecording
from encodec_fast.training.code_length import as_shipped, code_lengths, model_bits, shifted
from encodec_fast.training.configuration import load_settings
from encodec_fast.training.lm_settings import CodeDataSettings, LmOptimizerSettings, LmSettings
from encodec_fast.training.lm_start import initialise
from encodec_fast.training.lm_trainer import language_config, open_run, train_lm
from encodec_fast.training.sources import SourceSettings
from encodec_fast.training.static_tables import count_codes, table_widths, width_bits


def test_learns_a_sequence_that_can_be_foretold(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    before, _ = run.check()
    run.run()
    after, _ = run.check()
    assert run.step == 60 and run.progress() == 1
    assert list(after) == ["0.3", "0.6"]
    assert before["0.3"].per_code > 3.5 and after["0.3"].per_code < 1
    assert after["0.6"].per_code < before["0.6"].per_code - 1
    assert after["0.3"].saved > 0.7
    log = (tmp_path / "train.log").read_text()
    assert log.count("held out: 0.3 kbps: ") == 3 and " of 0.300 kbit/s" in log
    assert "broken.wav\tno audio" in (tmp_path / "skipped.tsv").read_text()


def test_bfloat16_learns_as_well(tmp_path: Path) -> None:
    exact, rounded = trainer(tmp_path / "a"), trainer(tmp_path / "b", precision="bfloat16")
    losses = [[run.train_step() for _ in range(20)] for run in (exact, rounded)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.05)
    assert rounded.model.emb[0].weight.dtype == torch.float32


def test_the_file_has_the_averaged_weights_and_the_tables(tmp_path: Path) -> None:
    """The native engine gives the codes the same lengths as the model that was judged."""
    run = trainer(tmp_path, steps=20)
    run.run()
    found = EntropyModel.load(tmp_path / "tiny.entropy.safetensors")
    assert (found.name, found.n_codebooks, found.codebook_size) == ("tiny", 2, 16)
    counts = count_codes(np.concatenate([r.segments[0] for r in CODES.plain], axis=1), 16)
    assert found.tables is not None and np.array_equal(found.tables, table_widths(counts))
    codes = CODES.held_out[0].segments[0]
    model = LanguageModel(TINY, 16, 2, 1)
    model.load_state_dict(as_shipped(run.average.state))
    p = model(shifted(torch.from_numpy(codes.astype(np.int64))[None]))[0][0].detach().numpy()
    coder = encodec_fast._native.LmCoder(found.lm, 2, 1)
    coder.reset([0])
    (native,) = coder.probabilities([0], [codes])
    np.testing.assert_allclose(native, p.transpose(2, 1, 0), atol=1e-5)


def test_a_worse_model_does_not_replace_the_file(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.best = 0.0
    assert run.check()[1] is False
    assert not run.entropy_file.exists()


def test_batches_do_not_depend_on_what_came_before(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    later = [run.sequences.batch(8, step) for step in (5, 2, 5)]
    assert later[0][1] == later[2][1] and torch.equal(later[0][0], later[2][0])
    assert later[0][1] != later[1][1]


def test_code_lengths_are_those_of_the_codes_and_their_time() -> None:
    """Two segments of a recording of 2 s, each a sequence that starts anew."""
    torch.manual_seed(2)
    model = LanguageModel(TINY, 16, 2, 1)
    parts = [chain(70, 1), chain(50, 2)]
    figures = code_lengths(model, [CodedRecording("a", "speech", parts, 2.0)])
    for kbps, n_q in (("0.3", 1), ("0.6", 2)):
        bits = 0.0
        for part in parts:
            codes = torch.from_numpy(part[:n_q].astype(np.int64))[None]
            p = model(shifted(codes))[0][0].detach().numpy()
            for k in range(n_q):
                for t in range(part.shape[1]):
                    bits -= math.log2(p[part[k, t], k, t])
        assert figures[kbps].per_code == pytest.approx(bits / (n_q * 120), rel=1e-3)
        assert figures[kbps].per_second == pytest.approx(bits / 2, rel=1e-3)
        assert figures[kbps].packed_per_second == n_q * 120 * 4 / 2
        assert figures[kbps].saved == pytest.approx(1 - bits / (n_q * 120 * 4), rel=1e-2)


def test_bits_are_those_of_key_chunks_one_by_one() -> None:
    torch.manual_seed(3)
    model = LanguageModel(TINY, 16, 2, 1)
    long = chain(1600, 5)
    parts = [long[:, :750], long[:, 750:1500], long[:, 1500:]]
    expected = np.zeros(2)
    for part in parts:
        codes = torch.from_numpy(part.astype(np.int64))[None]
        p = model(shifted(codes))[0].gather(1, codes[:, None])[:, 0]
        expected += -p.log2().sum(dim=(0, 2)).detach().numpy()
    np.testing.assert_allclose(model_bits(model, [long], 2), expected, rtol=1e-3)
    np.testing.assert_allclose(model_bits(model, parts, 2), expected, rtol=1e-3)


def test_key_chunks_are_those_of_files() -> None:
    """Also where a second is no whole number of frames, which rates are rounded up to."""
    torch.manual_seed(3)
    config = replace(TINY, sample_rate=1000, ratios=(64,), bandwidths=(0.064, 0.128))
    assert config.frame_rate == 16  # 15.625
    model = LanguageModel(config, 16, 2, 1)
    long = chain(400, 5)
    parts = [long[:, :156], long[:, 156:312], long[:, 312:]]
    assert model_bits(model, [long], 2).tolist() == model_bits(model, parts, 2).tolist()


def test_it_starts_from_the_static_tables() -> None:
    model = LanguageModel(TINY, 16, 2, 1)
    codes = [np.random.default_rng(2).geometric(0.3, (2, 4000)).clip(max=16).astype(np.uint16) - 1]
    counts = count_codes(codes[0], 16)
    initialise(model, CODEBOOKS, counts)
    for linear in model.linears:
        linear.weight.data.zero_()
    static = (counts * width_bits(table_widths(counts))).sum(axis=1)
    np.testing.assert_allclose(model_bits(model, codes, 2), static, rtol=1e-4)


def test_embeddings_start_as_codewords() -> None:
    model = LanguageModel(TINY, 16, 2, 1)
    initialise(model, CODEBOOKS, np.ones((2, 16), np.int64))
    found = torch.cat([table.weight[1:] for table in model.emb])
    expected = CODEBOOKS.reshape(32, 4)
    ratio = (
        torch.cdist(found, found).square().sum() / torch.cdist(expected, expected).square().sum()
    )
    torch.testing.assert_close(
        torch.cdist(found, found), torch.cdist(expected, expected) * ratio.sqrt(), atol=5e-3, rtol=0
    )
    assert not any(table.weight[0].any() for table in model.emb)


def test_shipped_weights_are_rounded_where_they_are_matrices() -> None:
    exact = torch.full((2,), 1 + 2**-12)
    shipped = as_shipped({"bias": exact, "weight": exact[None]})
    assert torch.equal(shipped["bias"], exact)
    assert shipped["weight"].tolist() == [[1, 1]] and shipped["weight"].dtype == torch.float32


def test_input_is_the_frame_before() -> None:
    codes = torch.tensor([[[4, 5, 0], [7, 0, 9]]])
    assert shifted(codes).tolist() == [[[0, 5, 6], [0, 8, 1]]]


def test_frames_after_the_end_do_not_count(tmp_path: Path) -> None:
    """A batch with a recording that ends early has the loss of the frames that exist."""
    run = trainer(tmp_path)
    whole = torch.from_numpy(chain(60, 7).astype(np.int64))[None]
    ended = torch.cat([whole[:, :, :30], torch.full((1, 2, 30), -1)], dim=2)
    loss = run._backward(whole[:, :, :30], 0).item()
    assert run._backward(ended, 0).item() == pytest.approx(loss, rel=1e-5)


def test_the_gradient_is_that_of_the_mean_loss(tmp_path: Path) -> None:
    """Gathered one codebook at a time, it is what autograd makes of the whole."""
    run = trainer(tmp_path)
    codes = torch.from_numpy(np.stack([chain(20, 1), chain(20, 2)]).astype(np.int64))
    loss = run._backward(codes, 3)
    found = {name: value.grad.clone() for name, value in run.model.named_parameters()}
    run.model.zero_grad()
    p, _, _ = run.model(shifted(codes), None, 3)
    expected = -p.gather(1, codes[:, None]).log().mean()
    torch.autograd.backward(expected)
    assert loss.item() == pytest.approx(expected.item() / math.log(2), rel=1e-5)
    for name, value in run.model.named_parameters():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("name", "segments"), [("stereo_48khz", False), ("encodec_48khz", True), ("nano_24khz", False)]
)
def test_a_run_from_recordings(tmp_path: Path, name: str, segments: bool) -> None:
    """Mono and stereo, causal and in segments, from a program file under any name."""
    (tmp_path / "audio").mkdir()
    write_corpus(tmp_path / "audio", seconds=1.5)
    program = tmp_path / "mine.safetensors"
    model = tiny_model(name)
    model.config = replace(model.config, name="mine")
    export_model(model, program)
    source = SourceSettings(
        str(tmp_path / "audio" / "MANIFEST.csv"), None, {"split": ("train",)},
        {"licence": ("GPL", "CC-BY-SA")},
    )  # fmt: skip
    chosen = settings(
        tmp_path / "run",
        steps=2,
        data=CodeDataSettings((source,), copies=1),
        codec=str(program),
        batch=2,
        seconds=0.2,
    )
    run = open_run(chosen)
    assert len(run.held_out) == 1 and len(run.held_out[0].segments) == (2 if segments else 1)
    assert run.held_out[0].seconds == pytest.approx(1.5, abs=0.01)
    assert run.widths.shape == (model.config.n_codebooks, 1024)
    assert all(run._draw()[1] == 0 for run.step in range(20)) == segments
    run.step = 0
    run.run()
    figures, _ = run.check()
    assert list(figures) == [f"{kbps:g}" for kbps in model.config.bandwidths]
    (tmp_path / "mine.entropy.safetensors").write_bytes(run.entropy_file.read_bytes())
    codec = encodec_fast.Codec.load(program)
    wave = np.random.default_rng(1).uniform(-0.3, 0.3, (codec.channels, 30000)).astype(np.float32)
    data = codec.compress(wave, bandwidth=6.0, entropy="lm")
    assert codec.decompress(data).shape == wave.shape


def test_a_language_model_sees_of_its_codec_what_it_needs() -> None:
    found = language_config(encodec_fast.Codec.load("nano_24khz"))
    assert (found.frame_rate, found.n_codebooks, found.codebook_size) == (75, 16, 1024)
    assert [found.n_q(kbps) for kbps in found.bandwidths] == [2, 4, 8, 16]


def test_training_writes_the_entropy_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "audio").mkdir()
    write_corpus(tmp_path / "audio", seconds=0.5)
    audio = f"audio={tmp_path / 'audio'}"
    chosen = load_settings(
        LmSettings,
        "lm_nano_24khz",
        [audio, f"out={tmp_path / 'run'}", "steps=1", "batch=1", "seconds=0.2", "data.copies=0"],
    )
    with monkeypatch.context() as patched, pytest.raises(ValueError, match="one process"):
        patched.setenv("WORLD_SIZE", "2")
        train_lm(chosen)
    path = train_lm(chosen)
    found = EntropyModel.load(path)
    assert (path.name, found.name) == ("nano_24khz.entropy.safetensors", "nano_24khz")
    assert path.stat().st_size < 6_000_000
    assert list((tmp_path / "run" / "codes").glob("codes_nano_24khz_*.npz"))


@pytest.mark.parametrize("name", ["lm_nano_24khz", "lm_stereo_48khz", "lm_encodec_24khz"])
def test_configurations_are_valid(name: str) -> None:
    assert load_settings(LmSettings, name, ["audio=a", "out=a"]).optimizer.betas == (0.9, 0.98)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"dim": 15}, "dim"),
        ({"heads": 3}, "dim"),
        ({"heads": 0}, "heads"),
        ({"layers": 0}, "layers"),
        ({"batch": 0}, "batch"),
        ({"steps": 0}, "steps"),
        ({"check_steps": 0}, "check_steps"),
        ({"minutes": -1.0}, "minutes"),
        ({"seconds": 0.0}, "seconds"),
        ({"dropout": 1.0}, "dropout"),
        ({"average_decay": 1.5}, "average_decay"),
        ({"precision": "half"}, "precision"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, changes: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        settings(tmp_path, **changes)
    for wrong in ({"lr": 0.0}, {"lr": float("nan")}, {"clip": -1.0}, {"weight_decay": 2.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            LmOptimizerSettings(**wrong)
    with pytest.raises(ValueError, match="copies"):
        CodeDataSettings((SourceSettings("a"),), copies=-1)
