"""Wall times of calls, and what becomes of them: medians, percentiles, ratios within a run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds that one call takes, and what it returns."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def p99(times: Sequence[float]) -> float:
    """What 99 of 100 times stay below."""
    return float(np.percentile(times, 99))


def ratio_cells(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, str]:
    """The median and range of the ratios of times that were taken next to each other."""
    ratios = sorted(t / o for t, o in zip(theirs, ours, strict=True))
    return {
        "ratio": f"**{statistics.median(ratios):.2f}**",
        "range": f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
    }
