"""Exported models that look ahead against the PyTorch model: MusicGen's and AudioGen's layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

# Behind the skip, because what follows imports torch.
import encodec_fast as ef  # noqa: E402
from encodec_fast.models.config import ModelConfig  # noqa: E402
from encodec_fast.models.encodec import EncodecModel  # noqa: E402
from encodec_fast.models.export import export_model  # noqa: E402

RATIOS = [(8, 5, 4, 4), (5, 3), (2,), (7, 1, 2), (1,)]


def config(ratios: tuple[int, ...], pad_mode: str, true_skip: bool, **more: object) -> ModelConfig:
    settings = {
        **{"name": "ahead", "sample_rate": 32000, "channels": 1, "bandwidths": (2.2,)},
        **{"causal": False, "norm": "weight_norm", "normalize": False, "ratios": ratios},
        **{"pad_mode": pad_mode, "true_skip": true_skip, "n_filters": 4, "dimension": 16},
        **{"codebook_size": 64, **more},
    }
    return ModelConfig(**settings)  # type: ignore[arg-type]  # as the fields say


def model_of(about: ModelConfig) -> EncodecModel:
    torch.manual_seed(0)
    model = EncodecModel(about).eval()
    with torch.no_grad():
        for q in range(about.n_codebooks):
            model.quantizer.codebook(q).embed.normal_(std=0.5**q)
    return model


def cuts(rng: np.random.Generator, total: int, largest: int) -> list[int]:
    ends = np.cumsum(rng.integers(0, largest, 2 * total // max(1, largest // 2) + 1))
    return [int(end) for end in ends if end < total]


@pytest.mark.parametrize("ratios", RATIOS, ids=str)
@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
@pytest.mark.parametrize("true_skip", [True, False])
def test_against_pytorch(
    tmp_path: Path, ratios: tuple[int, ...], pad_mode: str, true_skip: bool
) -> None:
    """Every length up to a few hops or so, and a stream cut at random beside each."""
    model = model_of(config(ratios, pad_mode, true_skip))
    export_model(model, tmp_path / "program")
    codec = ef.Codec.load(tmp_path / "program")
    hop, rng = codec.hop, np.random.default_rng(1)
    lengths = {1, 2, 3, hop - 1, hop, hop + 1, 2 * hop + 3, 5 * hop - 1, 9 * hop, 70 * hop + 7}
    equal = total = 0
    for length in sorted(lengths - {0}):
        wav = rng.standard_normal((1, length)).astype(np.float32)
        with torch.inference_mode():
            latents = model.encoder(torch.from_numpy(wav)[None])
            expected = model.quantizer.encode(latents, codec.n_codebooks).numpy()
        codes = codec.encode(wav, None)
        found = codes.codes[0]
        assert found.shape == (codec.n_codebooks, -(-length // hop))
        equal += int((expected.reshape(found.shape) == found).sum())
        total += found.size
        heard = codec.decode(codes)
        with torch.inference_mode():
            given = torch.from_numpy(found.astype(np.int64)).reshape(expected.shape)
            reference = model.decoder(model.quantizer.decode(given))[0].numpy()[:, :length]
        np.testing.assert_allclose(heard, reference, atol=2e-5 * np.abs(reference).max())
        encoder, decoder = codec.stream_encoder(None), codec.stream_decoder()
        parts = [encoder.push(part) for part in np.split(wav, cuts(rng, length, 3 * hop), axis=1)]
        joined = np.concatenate([*parts, encoder.flush()], axis=1)
        assert np.array_equal(joined, found)
        blocks = np.split(found, cuts(rng, found.shape[1], 4), axis=1)
        audio = [decoder.push(block) for block in blocks]
        assert np.concatenate([*audio, decoder.flush()], axis=1)[:, :length].tobytes() == (
            heard.tobytes()
        )
    assert equal >= 0.998 * total  # near-ties


def test_group_norm_needs_segments(tmp_path: Path) -> None:
    about = config((4, 2), "reflect", False, norm="time_group_norm")
    with pytest.raises(ValueError, match="ahead: group norm over whole recordings"):
        export_model(EncodecModel(about), tmp_path / "program")
    assert not list(tmp_path.iterdir())
