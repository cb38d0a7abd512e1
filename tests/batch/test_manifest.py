"""Manifests that are none: whatever stands in their place is an error that names the file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from encodec_fast.batch.manifest import check_document


@pytest.mark.parametrize(
    "found",
    [5, None, "a", [[1]], {"identity": 5}, {"identity": None}, {"identity": [[1]]}],
    ids=json.dumps,
)
def test_what_is_no_manifest(found: Any) -> None:
    with pytest.raises(ValueError, match=r"out/manifest\.json: not a manifest of tokenize"):
        check_document("out", "out/manifest.json", json.dumps(found).encode(), {"version": 1})


def test_keys_on_either_side_alone() -> None:
    """A run without entropy coding has no key for it."""
    data = json.dumps({"identity": {"version": 1, "entropy": "lm"}}).encode()
    check_document("out", "manifest.json", data, {"entropy": "lm", "version": 1})
    for identity, words in (
        ({"version": 1}, "entropy: expected none, found lm"),
        ({"version": 1, "entropy": "lm", "more": 2}, "more: expected 2, found none"),
    ):
        with pytest.raises(ValueError, match=f"output out: is of another run .{words}"):
            check_document("out", "manifest.json", data, identity)
