"""The quantiser: search, decoding, and a training forward that works."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import CAUSAL
from torch.nn import functional as F

from encodec_fast.models.rvq import Codebook, ResidualVectorQuantizer, kmeans, nearest

CONFIG = replace(CAUSAL, bandwidths=(1.5, 3.0))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(3)


@pytest.fixture
def quantizer() -> ResidualVectorQuantizer:
    rvq = ResidualVectorQuantizer(replace(CONFIG, dimension=4)).train()
    rvq(torch.randn(8, 4, 50), 4)
    return rvq


def test_encode_takes_the_nearest_entry_of_each_residual(
    quantizer: ResidualVectorQuantizer,
) -> None:
    z = torch.randn(2, 4, 7)
    codes = quantizer.encode(z, 3)
    residual = z.transpose(1, 2).reshape(-1, 4).double()
    for index in range(3):
        embed = quantizer.codebook(index).embed.double()
        expected = torch.cdist(residual, embed).argmin(dim=1)
        assert torch.equal(codes[index].flatten(), expected)
        residual = residual - embed[expected]
    decoded = quantizer.decode(codes).transpose(1, 2).reshape(-1, 4)
    torch.testing.assert_close(decoded.double(), z.transpose(1, 2).reshape(-1, 4) - residual)


def test_ties_go_to_the_lowest_index() -> None:
    assert nearest(torch.zeros(3, 2), torch.ones(5, 2)).tolist() == [0, 0, 0]


def test_kmeans_reports_the_sizes_of_its_clusters() -> None:
    samples = torch.randn(500, 3)
    means, sizes = kmeans(samples, 8, 20)
    codes = nearest(samples, means)
    assert torch.equal(sizes, torch.bincount(codes, minlength=8).float())
    for code in range(8):
        torch.testing.assert_close(means[code], samples[codes == code].mean(0), atol=0.05, rtol=0)


def test_kmeans_with_fewer_samples_than_entries() -> None:
    means, sizes = kmeans(torch.randn(5, 3), 16, 5)
    assert means.shape == (16, 3) and sizes.sum() == 5


def test_kmeans_initialisation_keeps_the_norms_of_codewords() -> None:
    codebook = Codebook(16, 8).train()
    x = torch.randn(640, 8) + 3
    codebook(x)
    assert codebook.inited.item() == 1
    before = x.norm(dim=1).mean()
    for _ in range(3):
        codebook(x)
    assert codebook.embed.norm(dim=1).mean() == pytest.approx(before.item(), rel=0.05)


def test_moving_averages_equal_a_plain_loop() -> None:
    codebook = Codebook(4, 2, dead_share=0.0).train()
    codebook.initialise(torch.randn(64, 2))
    sizes = codebook.cluster_size.double().numpy().copy()
    sums = codebook.embed_avg.double().numpy().copy()
    for _ in range(5):
        x = torch.randn(32, 2)
        codes = codebook.quantize(x)
        codebook.update(x, codes)
        for code in range(4):
            members = x.double().numpy()[codes.numpy() == code]
            sizes[code] = 0.99 * sizes[code] + 0.01 * len(members)
            sums[code] = 0.99 * sums[code] + 0.01 * members.sum(axis=0)
        smoothed = (sizes + 1e-5) / (sizes.sum() + 4e-5) * sizes.sum()
        np.testing.assert_allclose(codebook.cluster_size.numpy(), sizes, rtol=1e-5)
        np.testing.assert_allclose(codebook.embed_avg.numpy(), sums, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            codebook.embed.numpy(), sums / smoothed[:, None], rtol=1e-4, atol=1e-5
        )


def test_dead_codes_are_revived_and_stay() -> None:
    codebook = Codebook(16, 4).train()
    x = torch.randn(256, 4)
    codebook.initialise(x)
    codebook.embed[5:] = 100.0
    codebook.embed_avg[5:] = 100.0
    codebook.cluster_size[5:] = 0.0
    codebook(x)
    assert codebook.embed.abs().max() < 10
    codebook(x)
    assert codebook.embed.abs().max() < 10
    assert codebook.quantize(x).unique().numel() > 10


def test_every_commitment_loss_reaches_the_latents(quantizer: ResidualVectorQuantizer) -> None:
    z = torch.randn(2, 4, 6)
    whole = z.clone().requires_grad_()
    quantizer.eval()
    quantizer(whole, 4).commitment.backward()
    residual = z.transpose(1, 2).reshape(-1, 4)
    expected = torch.zeros_like(residual)
    for index in range(4):
        chosen = F.embedding(
            quantizer.codebook(index).quantize(residual), quantizer.codebook(index).embed
        )
        residual = residual - chosen
        layer_gradient = 2 * residual / residual.numel() / 4
        assert layer_gradient.abs().max() > 0
        expected += layer_gradient
    assert whole.grad is not None
    torch.testing.assert_close(whole.grad.transpose(1, 2).reshape(-1, 4), expected)


def test_reference_gradients_are_those_of_the_released_forward(
    quantizer: ResidualVectorQuantizer,
) -> None:
    """It subtracts each step's straight-through output, so that no later residual has a gradient:
    the loss of the first codebook is the only one that reaches the latents."""
    quantizer.eval()
    z = torch.randn(2, 4, 6, requires_grad=True)
    ours = quantizer(z, 4, reference_gradients=True)
    residual, total, losses = z, torch.zeros_like(z), []
    for index in range(4):
        codes = nearest(
            residual.detach().transpose(1, 2).reshape(-1, 4),
            embed := quantizer.codebook(index).embed,
        )
        codeword = embed[codes].reshape(2, 6, 4).transpose(1, 2)
        losses.append(F.mse_loss(codeword, residual))
        through = residual + (codeword - residual).detach()
        residual = residual - through
        total = total + through
    assert ours.commitment.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)
    torch.testing.assert_close(ours.latents, total)
    weights = torch.randn(2, 4, 6)
    for found, theirs in (
        (ours.commitment, torch.stack(losses).mean()),
        (ours.commitment, losses[0] / 4),
        ((ours.latents * weights).sum(), (total * weights).sum()),
    ):
        gradients = [torch.autograd.grad(each, z, retain_graph=True)[0] for each in (found, theirs)]
        assert gradients[0].abs().max() > 0
        torch.testing.assert_close(*gradients)


def test_autocast_changes_nothing_of_float32_latents(quantizer: ResidualVectorQuantizer) -> None:
    quantizer.eval()
    z = torch.randn(8, 4, 50)
    plain, codes = quantizer(z, 4), quantizer.encode(z, 4)
    with torch.autocast("cpu", torch.bfloat16):
        cast = quantizer(z, 4)
        assert torch.equal(quantizer.encode(z, 4), codes)
        assert quantizer(z.bfloat16(), 4).latents.dtype == torch.float32
    assert all(torch.equal(a, b) for a, b in zip(plain, cast, strict=True))


def test_straight_through_gradient_is_the_identity(quantizer: ResidualVectorQuantizer) -> None:
    z = torch.randn(2, 4, 6, requires_grad=True)
    weights = torch.randn(2, 4, 6)
    out = quantizer(z, 4)
    (out.latents * weights).sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(z.grad, weights)


def test_training_forward_returns_what_decode_returns(quantizer: ResidualVectorQuantizer) -> None:
    quantizer.eval()
    z = torch.randn(2, 4, 6)
    out = quantizer(z, 3)
    assert torch.equal(out.codes, quantizer.encode(z, 3))
    torch.testing.assert_close(out.latents, quantizer.decode(out.codes))


def test_eval_mode_learns_nothing(quantizer: ResidualVectorQuantizer) -> None:
    quantizer.eval()
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer(torch.randn(2, 4, 6), 4)
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())
