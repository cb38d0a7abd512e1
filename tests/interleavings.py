"""Random lives of a batch of streams, in step and out of it, by arrays and by lists of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Rng = np.random.Generator


def as_given(rng: Rng, array: Any) -> Any:
    """The same values in a form that callers have: of another type, or not contiguous."""
    form = rng.integers(4)
    if form == 0:
        return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    if form == 1:
        return np.repeat(array, 2, axis=2)[:, :, ::2]
    if form == 2:
        return np.ascontiguousarray(array.transpose(2, 1, 0)).transpose(2, 1, 0)
    array.flags.writeable = False
    return array


def spoilt(rng: Rng, array: Any) -> Any:
    """What a push must refuse."""
    form = rng.integers(4)
    if form == 0 and array.size:
        wrong = array.copy()
        wrong[-1, -1, -1] = np.nan if array.dtype.kind == "f" else 65535
        return wrong
    if form == 1:
        return array.astype(np.int32 if array.dtype.kind == "f" else np.float32)
    if form == 2:
        return np.concatenate([array] * 3, axis=1)  # too many channels or codebooks
    return array[1:]


def answer(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or the words with which it refuses."""
    try:
        return call(*arguments)
    except ValueError as error:
        return str(error)


def require_same(found: Any, expected: Any) -> None:
    """Raises AssertionError unless results, or refusals, are the same."""
    if found is None or isinstance(found, str) or isinstance(expected, str):
        assert found == expected
        return
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def check_lives(rng: Rng, arrays: Any, lists: Any, source: Callable[[int], Any], unit: int) -> int:
    """One batch of streams is pushed arrays [batch, height, length], the other one lists of the
    same; who is flushed, reset or pushed alone is the same in both, and so must all results be.

    source: the input of all streams of a length; unit: that of a frame. Returns the pushes of
    arrays that were taken."""
    taken = 0
    batch = source(0).shape[0]
    actions = ["push", "push_some", "refused", "flush", "reset"]
    for _ in range(60):
        length = int(rng.choice([0, unit, unit, unit, 2 * unit, 40 * unit, rng.integers(9 * unit)]))
        data = source(length)
        some = rng.permutation(batch)[: rng.integers(1, batch + 1)].tolist()
        action = rng.choice(actions, p=[0.66, 0.1, 0.1, 0.02, 0.12])
        if action == "push":
            found = answer(arrays.push, as_given(rng, data))
            if isinstance(found, str) and "not in step" in found:
                continue  # and nothing has changed, as what follows shows
            require_same(found, answer(lists.push, list(data)))
            taken += not isinstance(found, str)
        elif action == "push_some":
            part = list(data[some])
            require_same(answer(arrays.push, part, some), answer(lists.push, part, some))
        elif action == "refused":
            refusal = answer(arrays.push, spoilt(rng, data))
            assert isinstance(refusal, str) and ("expected" in refusal or "flushed" in refusal)
        else:
            who = some if rng.integers(2) else None
            calls = [getattr(streams, action) for streams in (arrays, lists)]
            require_same(*(answer(call, who) for call in calls))
    return taken
