"""rvq_encode and rvq_decode as operators in other people's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch: Any = pytest.importorskip("torch", reason="needs the extra torch")

from encodec_fast.integrations import operators  # noqa: E402  # after the skip

ENCODE = operators.rvq_encode
DECODE = operators.rvq_decode


def plain_encode(latents: Any, codebooks: Any) -> Any:
    residual, codes = latents.double(), []
    for book in codebooks.double():
        distances = (residual[..., None, :] - book).pow(2).sum(-1)
        codes.append(distances.argmin(-1))
        residual = residual - book[codes[-1]]
    return torch.stack(codes)


def sizes(seed: int = 0) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    scale = 0.5 ** torch.arange(4.0)[:, None, None]
    books = torch.randn(4, 64, 16, generator=generator) * scale
    return torch.randn(3, 50, 16, generator=generator), books


def test_they_are_what_the_loop_does() -> None:
    latents, books = sizes()
    codes = torch.ops.encodec_fast.rvq_encode(latents, books)
    assert codes.shape == (4, 3, 50) and codes.dtype == torch.int64
    assert torch.equal(codes, plain_encode(latents, books))
    expected = sum(book[c] for book, c in zip(books, codes, strict=True))
    torch.testing.assert_close(torch.ops.encodec_fast.rvq_decode(codes, books), expected)
    first = sum(book[c] for book, c in zip(books[:2], codes[:2], strict=True))
    torch.testing.assert_close(DECODE(codes[:2].to(torch.int16), books), first)
    assert torch.equal(ENCODE(latents[0, 0], books), codes[:, 0, 0])
    assert torch.equal(ENCODE(latents.transpose(0, 1), books), codes.transpose(1, 2))
    assert ENCODE(latents[:0], books).shape == (4, 0, 50)


def test_codebooks_written_through_data_are_noticed() -> None:
    latents, books = sizes()
    ENCODE(latents, books)
    books.data.copy_(sizes(1)[1])
    assert torch.equal(ENCODE(latents, books), plain_encode(latents, books))
    books[2, 5, 3] += 9.0
    assert torch.equal(ENCODE(latents, books), plain_encode(latents, books))


def test_many_codebooks_do_not_pile_up() -> None:
    latents, _ = sizes()
    for seed in range(10):
        books = sizes(seed)[1]
        assert torch.equal(ENCODE(latents, books), plain_encode(latents, books))
    assert len(operators._packed) <= 4


class ChannelsLast(torch.nn.Module):
    """Residual quantisation in the style of lucidrains: [batch, n, dim], indices [batch, n, q]."""

    def forward(self, x: Any, codebooks: Any) -> tuple[Any, Any]:
        codes = torch.ops.encodec_fast.rvq_encode(x, codebooks)
        return torch.ops.encodec_fast.rvq_decode(codes, codebooks), codes.permute(1, 2, 0)


def per_layer(z: Any, codebooks: Any) -> Any:
    """In the style of DAC: a projection in front of every codebook, so one search each."""
    codes = []
    for book in codebooks:
        unit = torch.nn.functional.normalize(z.transpose(1, 2), dim=-1)
        entries = torch.nn.functional.normalize(book, dim=-1)
        codes.append(torch.ops.encodec_fast.rvq_encode(unit, entries[None])[0])
        z = z - book[codes[-1]].transpose(1, 2)
    return torch.stack(codes, dim=1)


def test_styles_compile_in_one_graph() -> None:
    latents, books = sizes()
    module = ChannelsLast()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for a, b in zip(module(latents, books), compiled(latents, books), strict=True):
        assert torch.equal(a, b)
    z = latents.transpose(1, 2)
    compiled = torch.compile(per_layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(per_layer(z, books), compiled(z, books))


@pytest.mark.parametrize("operator", [ENCODE, DECODE], ids=["encode", "decode"])
def test_operators_keep_their_promises(operator: Any) -> None:
    latents, books = sizes()
    value = latents if operator is ENCODE else ENCODE(latents, books)
    torch.library.opcheck(operator, (value, books))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x, b, c: ENCODE(x.double(), b), "latents"),
        (lambda x, b, c: ENCODE(x[..., :8].contiguous(), b), "latents"),
        (lambda x, b, c: ENCODE(torch.tensor(1.0), b), "latents"),
        (lambda x, b, c: ENCODE(x, b[0]), "codebooks"),
        (lambda x, b, c: ENCODE(x, b.half()), "codebooks"),
        (lambda x, b, c: ENCODE(x, b[:0]), "codebooks"),
        (lambda x, b, c: ENCODE(x, b.clone().fill_(float("nan"))), "finite"),
        (lambda x, b, c: DECODE(c.float(), b), "codes"),
        (lambda x, b, c: DECODE(c + 64, b), "codes"),
        (lambda x, b, c: DECODE(c - 64, b), "codes"),
        (lambda x, b, c: DECODE(c.repeat(2, 1, 1), b), "codes"),
        (lambda x, b, c: DECODE(c, b.expand(4, 64, 16).double()), "codebooks"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[Any, Any, Any], Any], match: str) -> None:
    latents, books = sizes()
    with pytest.raises(ValueError, match=match):
        call(latents, books, ENCODE(latents, books))
