"""The entropy model's trainer: it learns what can be learnt, saves, goes on, refuses nonsense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recordings import write_corpus

from encodec_fast.models.config import CONFIGS
from encodec_fast.models.lm import LanguageModel
from encodec_fast.training.code_data import TrainingCodes
from encodec_fast.training.code_length import as_shipped, bits_per_code, model_bits, shifted
from encodec_fast.training.lm_start import initialise
from encodec_fast.training.lm_trainer import (
    LmTrainer,
    Settings,
    load_trained,
    open_run,
)
from encodec_fast.training.run import parse_settings
from encodec_fast.training.static_tables import count_codes, table_widths, width_bits

TINY = replace(
    CONFIGS["nano_24khz"], name="tiny", dimension=4, codebook_size=16, bandwidths=(0.3, 0.6)
)


def chain(frames: int, seed: int) -> NDArray[np.uint16]:
    """Codes [2, frames] that follow from those of the frame before, from a random start on."""
    codes = np.zeros((2, frames), np.uint16)
    codes[:, 0] = np.random.default_rng(seed).integers(16, size=2)
    for t in range(1, frames):
        codes[0, t] = (5 * codes[0, t - 1] + 3) % 16
        codes[1, t] = (codes[1, t - 1] + codes[0, t - 1]) % 16
    return codes


CODES = TrainingCodes(
    {"speech": [chain(90, seed) for seed in range(10)]},
    {"speech": [chain(90, seed) for seed in range(10, 30)]},
    [chain(80, 100), chain(40, 101)],
)
CODEBOOKS = torch.randn(2, 16, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        audio="",
        out=str(tmp_path / "run"),
        steps=60,
        dim=16,
        heads=2,
        layers=1,
        batch=8,
        seconds=0.8,
        lr=2e-2,
        warmup=10,
        average_decay=0.9,
        copies=0,
    )


def trainer(settings: Settings) -> LmTrainer:
    return LmTrainer(settings, TINY, CODEBOOKS, CODES)


def test_learns_a_sequence_that_can_be_foretold(settings: Settings) -> None:
    run = trainer(settings)
    before = run.check()
    run.run()
    after = run.check()
    assert run.step == 60 and run.progress() == 1
    assert list(after) == ["0.3", "0.6"]
    assert before["0.3"] > 3.5 and after["0.3"] < 1
    assert after["0.6"] < before["0.6"] - 1
    (line,) = (Path(settings.out) / "lm.log").read_text().splitlines()
    assert line.startswith("step 60 loss ") and " held out 0.3 kbps " in line


def test_the_file_holds_the_averaged_weights_and_tables(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, "tiny", TINY)
    run = trainer(replace(settings, steps=20))
    run.run()
    saved = torch.load(Path(settings.out) / "lm.pt", weights_only=True)
    model, widths = load_trained(Path(settings.out) / "lm.pt")
    for key, value in model.state_dict().items():
        assert torch.equal(value, run.average[key]), key
    model.load_state_dict(as_shipped(model.state_dict()))
    figures = bits_per_code(model, CODES.held_out)
    assert {key: saved["figures"][key] for key in figures} == figures
    counts = count_codes(np.concatenate(CODES.plain["speech"], axis=1), 16)
    assert np.array_equal(widths, table_widths(counts))


def test_other_files_are_no_entropy_models(tmp_path: Path) -> None:
    for name, content in (("empty.pt", b""), ("text.pt", b"not a file of weights")):
        (tmp_path / name).write_bytes(content)
    torch.save({"name": "nano_24khz", "dim": 8}, tmp_path / "keys.pt")
    torch.save([1], tmp_path / "list.pt")
    for name in ("empty.pt", "text.pt", "keys.pt", "list.pt"):
        with pytest.raises(ValueError, match=rf"{name}: not a trained entropy model"):
            load_trained(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_trained(tmp_path / "missing.pt")


def test_a_worse_model_does_not_replace_the_file(settings: Settings) -> None:
    run = trainer(settings)
    run.best = 0.0
    run.check()
    assert not (Path(settings.out) / "lm.pt").exists()


def test_resume_takes_up_the_state(settings: Settings) -> None:
    first = trainer(replace(settings, steps=5))
    first.run()
    second = trainer(replace(settings, resume=True))
    assert (second.step, second.elapsed, second.best) == (5, first.elapsed, first.best)
    for key, value in second.model.state_dict().items():
        assert torch.equal(value, first.model.state_dict()[key]), key
        assert torch.equal(second.average[key], first.average[key]), key
    pairs = zip(second.optimizer.state.values(), first.optimizer.state.values(), strict=True)
    for mine, other in pairs:
        assert all(torch.equal(mine[key], other[key]) for key in other)
    second.run()
    assert second.step == 60


def test_another_models_run_is_not_taken_up(settings: Settings) -> None:
    trainer(replace(settings, steps=1)).run()
    with pytest.raises(ValueError, match=r"last\.pt: expected layers 2, not 1"):
        trainer(replace(settings, layers=2, resume=True))


def test_equal_runs_are_equal(settings: Settings) -> None:
    losses = [
        [run.train_step() for _ in range(3)] for run in (trainer(settings), trainer(settings))
    ]
    assert losses[0] == losses[1]


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


def test_shipped_weights_are_rounded_where_they_are_matrices() -> None:
    exact = torch.full((2,), 1 + 2**-12)
    shipped = as_shipped({"bias": exact, "weight": exact[None]})
    assert torch.equal(shipped["bias"], exact)
    assert shipped["weight"].tolist() == [[1, 1]] and shipped["weight"].dtype == torch.float32


def test_input_is_the_frame_before() -> None:
    codes = torch.tensor([[[4, 5, 0], [7, 0, 9]]])
    assert shifted(codes).tolist() == [[[0, 5, 6], [0, 8, 1]]]


def test_frames_after_the_end_do_not_count(settings: Settings) -> None:
    """A batch with a recording that ends early has the loss of the frames that exist."""
    run = trainer(settings)
    run.random = np.random.default_rng(6)
    whole = torch.from_numpy(chain(60, 7).astype(np.int64))[None]
    ended = torch.cat([whole[:, :, :30], torch.full((1, 2, 30), -1)], dim=2)
    state = run.random.bit_generator.state
    loss = run._backward(whole[:, :, :30])
    run.random.bit_generator.state = state
    assert run._backward(ended) == pytest.approx(loss, rel=1e-5)


def test_learning_rate_warms_up_and_ends_at_zero(settings: Settings) -> None:
    run = trainer(replace(settings, steps=1000, warmup=100, lr=1.0))
    rates = []
    for run.step in (0, 99, 500, 1000):
        rates.append(run._learning_rate())
    assert rates == pytest.approx([0.01, 0.976, 0.5, 0.0], abs=1e-3)


def test_time_bounds_the_run(settings: Settings) -> None:
    run = trainer(replace(settings, steps=0, minutes=1.0))
    run.elapsed = 30.0
    assert run.progress() == 0.5
    run.elapsed = 61.0
    assert run.progress() == 1.0


def test_a_run_from_recordings(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    write_corpus(tmp_path / "audio", seconds=0.5)
    options = replace(settings, audio=str(tmp_path / "audio"), steps=2, copies=1, seconds=0.2)
    run = open_run(options)
    assert len(run.held_out) == 1
    assert run.widths.shape == (16, 1024)
    run.run()
    assert (Path(settings.out) / "lm.pt").exists()


def test_segmented_models_are_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(CONFIGS, "nano_24khz")
    with pytest.raises(ValueError, match=r"codec: expected a causal model .* not nano_24khz"):
        open_run(settings)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"dim": 15}, "dim"),
        ({"heads": 3}, "dim"),
        ({"heads": 0}, "dim"),
        ({"layers": 0}, "layers"),
        ({"batch": 0}, "batch"),
        ({"copies": -1}, "copies"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"minutes": -1.0}, "minutes"),
        ({"dropout": 1.0}, "dropout"),
        ({"average_decay": 1.5}, "average_decay"),
    ],
)
def test_bad_settings_are_refused(settings: Settings, changes: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        replace(settings, **changes)


def test_every_setting_is_an_option() -> None:
    parsed = parse_settings(
        Settings, None, ["--audio", "a", "--out", "b", "--dim", "66", "--resume"]
    )
    assert parsed == Settings(audio="a", out="b", dim=66, resume=True)
