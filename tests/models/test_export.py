"""Export to program files: what each type of weights keeps, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

# Behind the skip, because what follows imports torch and the peers.
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from tiny import tiny_model  # noqa: E402

import encodec_fast as ef  # noqa: E402
from encodec_fast.models.export import export_model  # noqa: E402


@pytest.mark.parametrize("name", ["encodec_24khz", "encodec_48khz"])
def test_bfloat16_is_for_the_matrices(tmp_path: Path, name: str) -> None:
    model = tiny_model(name)
    exact, half, widened = (tmp_path / part for part in ("exact", "half", "widened"))
    export_model(model, exact)
    export_model(model, half, dtype="bfloat16")
    tensors, stored = load_file(exact), load_file(half)
    assert tensors.keys() == stored.keys()
    for key, tensor in tensors.items():
        matrix = key.endswith((".weight", ".recurrent"))
        assert stored[key].dtype == (torch.bfloat16 if matrix else torch.float32)
        assert torch.equal(stored[key], tensor.to(stored[key].dtype))
    with safe_open(exact, "pt") as a, safe_open(half, "pt") as b:
        assert a.metadata() == b.metadata()
        save_file({key: t.float() for key, t in stored.items()}, widened, metadata=a.metadata())
    wav = np.random.default_rng(0).uniform(-1, 1, (model.config.channels, 30000))
    codecs = ef.Codec.load(half), ef.Codec.load(widened)
    first, second = (codec.compress(wav, 6.0, version=0) for codec in codecs)
    assert first == second
    codes = codecs[0].encode(wav, 6.0)
    assert codecs[0].decode(codes).tobytes() == codecs[1].decode(codes).tobytes()


@pytest.mark.parametrize(("dtype", "value"), [("bfloat16", 3.4e38), ("float16", 65520.0)])
def test_weights_that_a_type_cannot_hold_are_refused(
    tmp_path: Path, dtype: str, value: float
) -> None:
    """Finite in float32, infinite after rounding."""
    model = tiny_model("encodec_48khz")  # without weight normalisation
    conv = model.decoder.layers[0].conv
    with torch.no_grad():
        conv.weight[0, 0, 0] = value
    export_model(model, tmp_path / "exact")
    with pytest.raises(ValueError, match=rf"decoder\.0\.weight has values that {dtype} cannot"):
        export_model(model, tmp_path / "rounded", dtype=dtype)
    assert [path.name for path in tmp_path.iterdir()] == ["exact"]


def test_unknown_type(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dtype: expected 'float32'.*found 'bf16'"):
        export_model(tiny_model("encodec_24khz"), tmp_path / "p", dtype="bf16")
    assert not list(tmp_path.iterdir())
