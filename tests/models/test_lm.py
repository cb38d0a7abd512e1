"""The language model: zero entry, context, and streaming against whole sequences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small import CAUSAL

from encodec_fast.models.lm import LanguageModel, positions

CONFIG = replace(CAUSAL, bandwidths=(1.5, 3.0))


@pytest.fixture
def model() -> LanguageModel:
    torch.manual_seed(5)
    lm = LanguageModel(CONFIG, dim=16, heads=2, layers=2).eval()
    for name, value in lm.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(value)
    lm.transformer.reach = 6
    return lm


def test_positions_put_cosines_first_and_end_at_the_slowest() -> None:
    found = positions(3, 2, 200)
    assert found.shape == (2, 200)
    for row, time in zip(found, (3, 4), strict=True):
        for i in (0, 1, 50, 99):
            phase = torch.tensor(time / 10000 ** (i / 99))
            assert row[i].item() == pytest.approx(phase.cos().item(), abs=1e-6)
            assert row[100 + i].item() == pytest.approx(phase.sin().item(), abs=1e-6)


@torch.no_grad()
def test_streaming_equals_the_whole_sequence(model: LanguageModel) -> None:
    indices = torch.randint(0, 17, (2, 3, 20))
    whole, _, end = model(indices)
    assert whole.shape == (2, 16, 3, 20) and end == 20
    torch.testing.assert_close(whole.sum(1), torch.ones(2, 3, 20))
    states, offset, parts = None, 0, []
    for size in (1, 1, 4, 9, 5):
        part, states, offset = model(indices[..., offset : offset + size], states, offset)
        parts.append(part)
        assert all(state.shape[1] <= 6 for state in states)
    torch.testing.assert_close(torch.cat(parts, dim=-1), whole, rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_zero_entry_counts_until_it_is_out_of_reach(model: LanguageModel) -> None:
    indices = torch.randint(0, 17, (1, 4, 12))
    layer = model.transformer.layers[0]
    x = torch.randn(1, 12, 16)
    with_entry = layer(x, torch.zeros(1, 1, 16), 6)
    without = layer(x, torch.zeros(1, 0, 16), 6)
    differs = (with_entry - without).abs().amax(dim=(0, 2)) > 1e-6
    assert differs.tolist() == [True] * 6 + [False] * 6
    assert model(indices)[0].shape == (1, 16, 4, 12)


def test_released_sizes() -> None:
    with torch.device("meta"):
        lm = LanguageModel(replace(CAUSAL, codebook_size=1024))
    assert sum(value.numel() for value in lm.parameters()) == 15_559_768
    assert sum(value.numel() for value in lm.transformer.parameters()) == 2_413_400
    assert lm.transformer.reach == 262


def test_too_many_codebooks_are_refused(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="1 to 10 codebooks, not 11"):
        model(torch.zeros(1, 11, 1, dtype=torch.int64))


@torch.no_grad()
@pytest.mark.parametrize("n_q", [1, 4])
def test_equals_the_reference_step_by_step(n_q: int) -> None:
    """To the last bit, also where the zero entry and old steps are out of reach."""
    from peers import import_encodec

    import_encodec()
    from encodec.model import LMModel  # type: ignore[import-not-found,unused-ignore]

    torch.manual_seed(6)
    peer = LMModel(4, 1024, num_layers=2, past_context=9).eval()
    for name, value in peer.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(value, std=0.1)
    ours = LanguageModel(replace(CAUSAL, codebook_size=1024, bandwidths=(3.0,)), layers=2).eval()
    ours.transformer.reach = 9
    ours.load_state_dict(peer.state_dict())
    states, offset = None, 0
    peer_states, peer_offset = None, 0
    for step in range(30):
        indices = torch.randint(0, 1025, (1, n_q, 1)) if step else torch.zeros(1, n_q, 1).long()
        found, states, offset = ours(indices, states, offset)
        expected, peer_states, peer_offset = peer(indices, peer_states, peer_offset)
        assert torch.equal(found, expected) and offset == peer_offset
