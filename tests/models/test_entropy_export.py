"""Export of entropy models, and the native language model against the one in PyTorch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

# Behind the skip, because what follows imports torch.
from language_models import random_codes  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from small import CAUSAL  # noqa: E402

from encodec_fast import _native  # noqa: E402
from encodec_fast.entropy_model import EntropyModel  # noqa: E402
from encodec_fast.models.entropy_export import export_entropy_model  # noqa: E402
from encodec_fast.models.lm import LanguageModel  # noqa: E402

WIDTHS = np.full((4, 16), 1 << 20, np.uint32)


def random_model(entries: int, codebooks: int, past: int, **sizes: int) -> LanguageModel:
    """With biases, and with heads that are sure of something."""
    torch.manual_seed(3)
    bandwidth = codebooks * (entries.bit_length() - 1) * 75 / 1000
    config = replace(CAUSAL, codebook_size=entries, bandwidths=(bandwidth,))
    lm = LanguageModel(config, **sizes).eval()
    assert len(lm.emb) == codebooks
    lm.transformer.reach = past
    with torch.no_grad():
        for name, value in lm.named_parameters():
            if "bias" in name:
                value.normal_(std=0.2)
            elif name.startswith("linears"):
                value.mul_(5)
    return lm


def small_model() -> LanguageModel:
    return random_model(16, 4, 7, dim=24, heads=3, layers=2)


def native(lm: LanguageModel, folder: Path, dtype: str = "float32") -> Any:
    path = folder / f"{dtype}.entropy.safetensors"
    export_entropy_model("small", lm, None, path, dtype)
    return EntropyModel.load(path).lm


@torch.no_grad()
def expected(lm: LanguageModel, codes: np.ndarray) -> np.ndarray:
    """float32 [steps, n_q, entries] by PyTorch, one step after the other."""
    states, offset = None, 0
    indices = torch.zeros(1, codes.shape[0], 1, dtype=torch.int64)
    out = []
    for step in range(codes.shape[1]):
        p, states, offset = lm(indices, states, offset)
        out.append(p[0, :, :, 0].T.numpy())
        indices = torch.from_numpy(codes[None, :, step : step + 1].astype(np.int64)) + 1
    return np.stack(out)


def assert_close(lm: LanguageModel, model: Any, codes: np.ndarray) -> None:
    found = _native.LmCoder(model, codes.shape[0], 1).probabilities([0], [codes])[0]
    peer = expected(lm, codes)
    assert peer.max() > 0.1  # not all the same
    np.testing.assert_allclose(found, peer, rtol=2e-4, atol=1e-6)


def test_small_model_equals_pytorch(tmp_path: Path) -> None:
    """All numbers of codebooks, and far beyond the context."""
    lm = small_model()
    model = native(lm, tmp_path)
    for n_q in range(1, 5):
        assert_close(lm, model, random_codes(n_q, n_q, 60, 16))


@pytest.mark.parametrize(("n_q", "past"), [(8, 262), (2, 525)])
def test_released_sizes_equal_pytorch(tmp_path: Path, n_q: int, past: int) -> None:
    lm = random_model(1024, 8, past)
    assert_close(lm, native(lm, tmp_path), random_codes(1, n_q, past + 20, 1024))


def test_bfloat16_rounds_matrices_and_embeddings(tmp_path: Path) -> None:
    lm = small_model()
    half = native(lm, tmp_path, "bfloat16")
    native(lm, tmp_path)
    exact, stored = (
        load_file(tmp_path / f"{dtype}.entropy.safetensors") for dtype in ("float32", "bfloat16")
    )
    assert exact.keys() == stored.keys()
    for key, tensor in exact.items():
        matrix = tensor.ndim == 2
        assert stored[key].dtype == (torch.bfloat16 if matrix else torch.float32)
        assert torch.equal(stored[key], tensor.to(stored[key].dtype))
    with torch.no_grad():
        for value in lm.parameters():
            if value.ndim == 2:
                value.copy_(value.bfloat16())
    codes = random_codes(5, 4, 50, 16)
    payloads = [
        _native.LmCoder(model, 4, 1).encode([0], [codes]) for model in (half, native(lm, tmp_path))
    ]
    assert payloads[0] == payloads[1]


def test_tables(tmp_path: Path) -> None:
    path = tmp_path / "x"
    widths = np.random.default_rng(0).integers(1, 1 << 20, (4, 16)).astype(np.uint32)
    export_entropy_model("small", small_model(), widths, path)
    model = EntropyModel.load(path)
    assert model.name == "small" and model.lm is not None and model.tables is not None
    assert np.array_equal(model.tables, widths)
    export_entropy_model("small", None, widths, path)
    assert EntropyModel.load(path).lm is None


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        (np.zeros((4, 16), np.uint32), "widths: expected at least 1 each"),
        (np.full((4, 16), (1 << 20) + 1, np.uint32), "at most 16777216 per codebook"),
        (np.full((4, 16), 1 << 31, np.uint32), "at most 16777216 per codebook"),
        (np.ones((4, 16), np.float32), r"widths: expected integers .* found float32 \[4, 16\]"),
        (np.ones(16, np.uint32), r"widths: expected integers \[codebooks, entries\]"),
        (np.ones((3, 16), np.uint32), r"of the same codebooks.*\[\(3, 16\), \(4, 16\)\]"),
    ],
)
def test_bad_widths(tmp_path: Path, widths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_entropy_model("small", small_model(), widths, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least one.*found neither"):
        export_entropy_model("small", None, None, tmp_path / "x")
    with pytest.raises(
        ValueError, match="dtype: expected 'float32' or 'bfloat16', found 'float16'"
    ):
        export_entropy_model("small", None, WIDTHS, tmp_path / "x", dtype="float16")
    lm = small_model()
    with torch.no_grad():
        lm.emb[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="embedding has values that float32 cannot hold"):
        export_entropy_model("small", lm, None, tmp_path / "x")
    assert not list(tmp_path.iterdir())
