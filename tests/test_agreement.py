"""The measures of agreement must notice what they are there to notice."""

from __future__ import annotations

import numpy as np
import pytest
from agreement import NEAR_TIE, compare_codes, snr_db


def _case() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    codebooks = rng.standard_normal((3, 16, 8)).astype(np.float32)
    latents = rng.standard_normal((8, 20)).astype(np.float32)
    codes = np.zeros((3, 20), np.int64)
    residual = latents.T.copy()
    for level in range(3):
        distances = ((residual[:, None] - codebooks[level][None]) ** 2).sum(axis=2)
        codes[level] = distances.argmin(axis=1)
        residual -= codebooks[level][codes[level]]
    return codes, latents, codebooks


def test_equal_codes_agree() -> None:
    codes, latents, codebooks = _case()
    result = compare_codes(codes, codes.copy(), latents, codebooks)
    assert result.share_equal == 1.0 and result.widest_margin == 0.0


def test_a_wrong_code_is_counted_once_per_frame_and_is_no_near_tie() -> None:
    codes, latents, codebooks = _case()
    wrong = codes.copy()
    wrong[1:, 4] = (wrong[1:, 4] + 1) % 16
    result = compare_codes(codes, wrong, latents, codebooks)
    assert result.frames_differing == 1
    assert result.share_equal == pytest.approx(1 - 1 / 60)
    assert result.widest_margin > NEAR_TIE


def test_a_duplicate_entry_is_a_near_tie() -> None:
    codes, latents, codebooks = _case()
    codebooks[0, 15] = codebooks[0, codes[0, 0]]
    other = codes.copy()
    other[0, 0] = 15
    assert compare_codes(codes, other, latents, codebooks).widest_margin < NEAR_TIE


def test_a_missing_frame_is_no_agreement() -> None:
    codes, latents, codebooks = _case()
    with pytest.raises(AssertionError, match="codes expected"):
        compare_codes(codes, codes[:, :-1], latents, codebooks)


def test_snr_of_a_known_error() -> None:
    signal = np.ones((1, 1000))
    assert snr_db(signal, signal * 1.001) == pytest.approx(60.0)
    assert snr_db(signal, signal.copy()) == float("inf")
