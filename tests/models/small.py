"""Small configurations with the released models' structure, for tests that need no real sizes."""

from __future__ import annotations

from dataclasses import replace

from encodec_fast.models.config import CONFIGS

SIZES = {"n_filters": 4, "dimension": 8, "codebook_size": 16, "lstm_layers": 1}

CAUSAL = replace(CONFIGS["encodec_24khz"], name="small_24khz", **SIZES)  # type: ignore[arg-type]
SEGMENTED = replace(CONFIGS["encodec_48khz"], name="small_48khz", **SIZES)  # type: ignore[arg-type]
ZERO_PADDED = replace(CAUSAL, name="small_zero_padded", pad_mode="constant")
