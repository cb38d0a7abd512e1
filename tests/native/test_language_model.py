"""The native language model: the documented arithmetic, and equal bits in every form of it. Also
run under the sanitizers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lm_oracle
import numpy as np
import pytest
from language_models import Sizes, native_model, random_codes, random_model, random_weights

from encodec_fast import _core

SHAPES = {
    "odd widths": Sizes(),
    "one head of 25": Sizes(dim=50, heads=2, layers=1, past=20, entries=33, width=70),
    "heads of 40": Sizes(dim=80, heads=2, layers=1, past=17, entries=1000, codebooks=2),
    "short past": Sizes(dim=4, heads=4, layers=3, past=1, entries=2, codebooks=1, width=1),
    "long past": Sizes(dim=18, heads=1, layers=1, past=150, entries=16, codebooks=2, width=16),
    "peaked": Sizes(past=5, scale=6.0),
}


@pytest.fixture(params=SHAPES, scope="module")
def sizes(request: pytest.FixtureRequest) -> Sizes:
    return SHAPES[request.param]


def whole(model: Any, codes: Any) -> Any:
    coder = _core.LmCoder(model, codes.shape[0], 1)
    return coder.probabilities([0], [codes])[0]


def test_documented_arithmetic(sizes: Sizes) -> None:
    """The numpy oracle, for all codebooks and for fewer."""
    weights = random_weights(1, sizes)
    model = native_model(weights, sizes)
    steps = min(2 * sizes.past + 3, 60)
    for n_q in {1, sizes.codebooks}:
        codes = random_codes(2, n_q, steps, sizes.entries)
        expected = lm_oracle.probabilities(weights, sizes, codes)
        found = whole(model, codes)
        assert found.shape == expected.shape and found.dtype == np.float32
        assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))
        np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)


def test_chunks_and_steps_equal_the_whole(sizes: Sizes) -> None:
    model = random_model(3, sizes)
    codes = random_codes(4, sizes.codebooks, 500, sizes.entries)
    expected = whole(model, codes).tobytes()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        ends = [*np.sort(rng.integers(0, 500, 6)), 500] if seed else range(1, 501)
        coder = _core.LmCoder(model, sizes.codebooks, 1)
        parts, begin = [], 0
        for end in ends:
            parts += coder.probabilities([0], [codes[:, begin:end].copy()])
            begin = end
        assert np.concatenate(parts).tobytes() == expected


def test_batches_equal_single_streams(sizes: Sizes) -> None:
    """Mixed lengths, subsets in any order, streams that start anew while others go on."""
    model = random_model(5, sizes)
    rng = np.random.default_rng(6)
    lanes = 5
    coder = _core.LmCoder(model, sizes.codebooks, lanes)
    coded: list[list[Any]] = [[] for _ in range(lanes)]
    found: list[list[Any]] = [[] for _ in range(lanes)]
    for call in range(25):
        streams = rng.permutation(lanes)[: rng.integers(1, lanes + 1)].tolist()
        lengths = rng.choice([0, 1, 1, 2, 17, 64, 65, 130], len(streams))
        codes = [
            random_codes(100 * call + s, sizes.codebooks, n, sizes.entries)
            for s, n in zip(streams, lengths, strict=True)
        ]
        for s, c, p in zip(streams, codes, coder.probabilities(streams, codes), strict=True):
            coded[s].append(c)
            found[s].append(p)
        if rng.random() < 0.2:
            lane = int(rng.integers(lanes))
            compare(model, coded[lane], found[lane])
            coded[lane], found[lane] = [], []
            coder.reset([lane])
    for lane in range(lanes):
        compare(model, coded[lane], found[lane])


def compare(model: Any, coded: list[Any], found: list[Any]) -> None:
    if coded:
        expected = whole(model, np.concatenate(coded, axis=1))
        assert np.concatenate(found).tobytes() == expected.tobytes()


def test_bfloat16_weights_are_their_values(sizes: Sizes) -> None:
    codes = random_codes(8, sizes.codebooks, 150, sizes.entries)
    exact, half = (whole(random_model(7, sizes, bf16), codes) for bf16 in (False, True))
    assert exact.tobytes() == half.tobytes()


def test_bytes_equal_in_every_form(sizes: Sizes) -> None:
    """Streams of a batch, decoded together and alone."""
    model = random_model(9, sizes)
    lengths = [70, 1, 200, 0, 33]
    codes = [random_codes(i, sizes.codebooks, n, sizes.entries) for i, n in enumerate(lengths)]
    together = _core.LmCoder(model, sizes.codebooks, len(codes))
    data = together.encode(range(len(codes)), codes)
    together.reset(range(len(codes)))
    decoded = together.decode([*range(len(codes))], data, lengths)
    for one, alone, back in zip(codes, data, decoded, strict=True):
        assert np.array_equal(one, back)
        single = _core.LmCoder(model, sizes.codebooks, 1)
        assert single.encode([0], [one]) == [alone]
        single.reset([0])
        assert np.array_equal(single.decode([0], [alone], [one.shape[1]])[0], one)


def test_payloads_go_on_from_each_other(sizes: Sizes) -> None:
    model = random_model(10, sizes)
    writer, reader = (_core.LmCoder(model, sizes.codebooks, 2) for _ in range(2))
    for call, steps in enumerate((5, 0, 1, 90, 1, 1, 40)):
        codes = random_codes(call, sizes.codebooks, steps, sizes.entries)
        data = writer.encode([1], [codes])
        assert np.array_equal(reader.decode([1], data, [steps])[0], codes)
    fresh = _core.LmCoder(model, sizes.codebooks, 1)
    writer.reset([1])
    assert writer.encode([1], [codes]) == fresh.encode([0], [codes]) != data


def test_the_context_is_bounded_and_positions_are_not(sizes: Sizes) -> None:
    """Far into a stream only the past and the position count: another beginning changes nothing."""
    model = random_model(11, sizes)
    begins = [random_codes(s, sizes.codebooks, 300, sizes.entries) for s in (1, 2)]
    reach = sizes.layers * sizes.past + 1
    end = random_codes(3, sizes.codebooks, reach + 5, sizes.entries)
    first, second = (whole(model, np.concatenate([b, end], axis=1))[-5:] for b in begins)
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != whole(model, end)[-5:].tobytes()


HASH_PROGRAM = """
import hashlib, sys
sys.path[:0] = sys.argv[1:]
from language_models import Sizes, random_codes, random_model
from native.test_language_model import digest
from encodec_fast import _core
print(_core.isa(), digest())
"""


def digest() -> str:
    """Of probabilities and bytes of several models."""
    found = hashlib.sha256()
    for seed, (sizes, bf16) in enumerate((s, b) for s in SHAPES.values() for b in (False, True)):
        model = random_model(seed, sizes, bf16)
        codes = random_codes(seed, sizes.codebooks, 90, sizes.entries)
        coder = _core.LmCoder(model, sizes.codebooks, 3)
        for p in coder.probabilities([2, 0], [codes, codes[:, :7].copy()]):
            found.update(p.tobytes())
        for data in coder.encode([1, 2], [codes, codes]):
            found.update(data)
        coder.reset([1])
        back = coder.decode([1], [data], [3])[0]
        found.update(b"damaged" if back is None else back.tobytes())
    return found.hexdigest()


def test_instruction_sets_agree() -> None:
    here = digest()
    tests = Path(__file__).parents[1]
    for isa in _core.supported_isas():
        result = subprocess.run(
            [sys.executable, "-c", HASH_PROGRAM, str(tests)],
            cwd=Path(sys.prefix),
            env={**os.environ, "ENCODEC_FAST_ISA": isa},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stdout.split() == [isa, here], result.stderr


def test_threads_share_a_model() -> None:
    sizes = SHAPES["odd widths"]
    model = random_model(12, sizes)
    codes = [random_codes(s, 3, 400, sizes.entries) for s in range(8)]
    alone = [whole(model, c).tobytes() for c in codes]
    with ThreadPoolExecutor(4) as pool:
        assert [p.tobytes() for p in pool.map(lambda c: whole(model, c), codes)] == alone


def test_positions_of_hours() -> None:
    """A stream of 2^21 steps (8 hours): embeddings without a sound leave the positions alone."""
    sizes = Sizes(dim=8, heads=1, layers=1, past=1, entries=2, codebooks=1, width=1)
    weights = random_weights(13, sizes)
    model = native_model(weights, sizes)
    coder = _core.LmCoder(model, 1, 1)
    steps = 1 << 21
    codes = np.zeros((1, steps), np.uint16)
    for begin in range(0, steps, 1 << 17):
        last = coder.probabilities([0], [codes[:, begin : begin + (1 << 17)]])[0]
    x = lm_oracle.layer_norm(weights["books"][0][0][[1, 1, 1]], *weights["norm"])
    x = x + lm_oracle.positions(steps - 3, 3, sizes.dim)
    layer = weights["layers"][0]
    qkv = lm_oracle.chain(x, *layer[:2])
    mixed = lm_oracle.attention(qkv[1:], qkv[0], sizes)[-1:]
    x = lm_oracle.layer_norm(lm_oracle.chain(mixed, *layer[2:4]) + x[-1:], *layer[8:10])
    hidden = lm_oracle.gelu(lm_oracle.chain(x, *layer[4:6]))
    x = lm_oracle.layer_norm(lm_oracle.chain(hidden, *layer[6:8]) + x, *layer[10:])
    terms, total = lm_oracle.softmax(lm_oracle.chain(x, *weights["books"][0][1:])[0])
    assert last[-1, 0].tobytes() == (terms / total).tobytes()
