"""Program files: what is read, and that a bad one ends in one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import describe, tiny_program, write_program

from encodec_fast import _native
from encodec_fast.program import Program, read_header

Change = Callable[[dict[str, Any], dict[str, Any]], object]


def test_header(tmp_path: Path) -> None:
    path = tiny_program(tmp_path, "segments", channels=2)
    header = read_header(path)
    assert header == Program.load(path).header
    assert (header.name, header.sample_rate, header.channels) == ("tiny_segments", 8000, 2)
    assert (header.n_codebooks, header.codebook_size, header.codebook_bits) == (4, 32, 5)
    assert header.n_q(6.0) == 2 and header.n_q(None) == 4
    with pytest.raises(ValueError, match="supports 3, 6, 12 kbps, found 7"):
        header.n_q(7)


def test_float16_weights_are_widened(tmp_path: Path) -> None:
    header, tensors = describe("reflect")
    half = {name: array.astype(np.float16) for name, array in tensors.items()}
    exact = {name: array.astype(np.float32) for name, array in half.items()}
    a = Program.load(write_program(tmp_path / "half", header, half))
    b = Program.load(write_program(tmp_path / "full", header, exact))
    audio = np.linspace(-1, 1, 600, dtype=np.float32)[None]
    from encodec_fast.blocks import BlockEncoder

    codes = []
    for program in (a, b):
        encoder = BlockEncoder(program, 4, 1)
        pieces = encoder.push(audio) + encoder.flush()
        codes.append(np.concatenate([piece.codes for piece in pieces], axis=1))
    assert np.array_equal(*codes)


def with_norm(header: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Group norm in both graphs."""
    for side, op in (("e", header["encoder"][0]), ("d", header["decoder"][0])):
        size = len(tensors[op["bias"]])
        tensors |= {f"{side}.scale": np.ones(size, np.float32)}
        tensors |= {f"{side}.offset": np.zeros(size, np.float32)}
        op["norm"] = {"scale": f"{side}.scale", "offset": f"{side}.offset", "eps": 1e-5}


BAD: dict[str, tuple[Change, str]] = {
    "format": (lambda h, t: h.update(format=2), "format: expected 1, found 2"),
    "missing tensor": (lambda h, t: t.pop("e5.weight"), "no tensor named 'e5.weight'"),
    "missing key": (lambda h, t: h["encoder"][0].pop("kernel"), "kernel"),
    "unknown op": (lambda h, t: h["encoder"][0].update(op="fft"), "expected conv.*found 'fft'"),
    "later value": (lambda h, t: h["encoder"][2].update(input=5), "operation 2: input: no value 5"),
    "own output": (lambda h, t: h["encoder"][0].update(add=1), "add: no value 1"),
    "other rate": (lambda h, t: h["encoder"][4].update(add=4), "another rate"),
    "huge stride": (lambda h, t: h["encoder"][4].update(stride=1 << 40), "stride: expected"),
    "boolean number": (lambda h, t: h["encoder"][0].update(stride=True), "stride: expected"),
    "wrong padding": (lambda h, t: h["encoder"][0].update(pad=[1, 0]), "kernel - stride"),
    "negative padding": (lambda h, t: h["encoder"][0].update(pad=[7, -1]), "pad: expected"),
    "hop": (lambda h, t: h.update(hop=5), "samples per frame"),
    "channels": (lambda h, t: h.update(channels=2), "expected 2 input channels, found 1"),
    "no operations": (lambda h, t: h.update(encoder=[]), "encoder: expected a list"),
    "too many codebooks": (lambda h, t: h.update(bandwidths=[[3.0, 9]]), "codebooks: expected"),
    "segment without norm": (
        lambda h, t: h.update(segment_length=100, segment_stride=90),
        "expected null for causal operations",
    ),
    "norm without segments": (lambda h, t: with_norm(h, t), "operations that need whole segments"),
    "decoder that looks ahead": (
        lambda h, t: h["decoder"][0].update(pad=[2, 2]),
        "encoder and decoder: causal",
    ),
    "bias size": (lambda h, t: t.update({"e5.bias": np.zeros(5, np.float32)}), "bias"),
    "weight not finite": (lambda h, t: t["e5.weight"].fill(np.nan), "e5.weight: has values"),
    "dead operation": (lambda h, t: h["encoder"][3].update(add=None), "nothing reads value 2"),
    "shared tensor": (
        lambda h, t: h["encoder"][3].update(weight="e2.weight"),
        "e2.weight: is used twice",
    ),
    "name with an escape": (lambda h, t: h.update(name="\x1b[31mX"), "is not a model name"),
    "falling bandwidths": (lambda h, t: h["bandwidths"].reverse(), "expected rising kbps"),
    "name": (lambda h, t: h.update(name=7), "name: expected a name"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_programs(tmp_path: Path, case: str) -> None:
    header, tensors = describe("reflect")
    change, message = BAD[case]
    change(header, tensors)
    path = write_program(tmp_path / "bad.safetensors", header, tensors)
    with pytest.raises(ValueError, match=message) as caught:
        Program.load(path)
    assert "bad.safetensors" in str(caught.value)


def test_truncated_at_every_part(tmp_path: Path) -> None:
    data = tiny_program(tmp_path, "reflect").read_bytes()
    path = tmp_path / "cut"
    for size in [*range(0, 64), *range(64, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(ValueError):
            Program.load(path)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    for content in (b"RIFF" + bytes(100), b"\xff" * 100, bytes(200)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a program"):
            read_header(path)
    with pytest.raises(OSError):
        Program.load(tmp_path / "absent")


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_mutated_headers_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    """Any value anywhere in the operation list: a ValueError, or a program that runs."""
    header, tensors = describe(data.draw(st.sampled_from(["reflect", "segments"])))
    ops = header[data.draw(st.sampled_from(["encoder", "decoder"]))]
    op = ops[data.draw(st.integers(0, len(ops) - 1))]
    key = data.draw(st.sampled_from(sorted(op)))
    value = data.draw(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-3, 12),
            st.sampled_from([1 << 31, 1 << 63, -(1 << 70), 1e300]),
            st.sampled_from(["conv", "lstm", "e1.weight", "e5.bias", "codebooks"]),
            st.lists(st.integers(-1, 7), max_size=3),
        )
    )
    op[key] = value
    path = write_program(tmp_path / "mutated", json.loads(json.dumps(header)), tensors)
    try:
        program = Program.load(path)
    except ValueError:
        return
    from encodec_fast.codec import Codec

    codec = Codec(program)
    wav = np.sin(np.arange(250, dtype=np.float32))[None]
    try:
        assert codec.decode(codec.encode(wav, None)).shape == wav.shape
    except ValueError:
        return


def conv(graph: _native.Graph, source: int, stride: int, add: int = -1) -> int:
    """A convolution of one channel, without padding but for a kernel of two."""
    kernel = max(stride, 2)
    weight = np.ones((kernel, 1), np.float32)
    bias = np.zeros(1, np.float32)
    left = kernel - stride
    return graph.conv(
        source, add, False, kernel, stride, left, 0, False, weight, bias, None, None, 0.0
    )


@pytest.mark.parametrize(("falls", "rows"), [([2], 1), ([2, 3], 3)])
def test_sums_of_values_that_differ_in_length(falls: list[int], rows: int) -> None:
    """At equal rates: 2 * ceil(T / 2) rows are not T."""
    graph = _native.Graph(1)
    value = conv(graph, 0, falls[0])
    up = np.ones((2, falls[0]), np.float32)
    value = graph.conv_transpose(
        value, False, falls[0], 0, up, np.zeros(1, np.float32), None, None, 0.0
    )
    other = 0
    if len(falls) > 1:
        value, other = conv(graph, value, falls[1]), conv(graph, 0, falls[1])
    conv(graph, value, 1, add=other)
    with pytest.raises(ValueError, match=f"longer or shorter for {rows} rows"):
        graph.seal()


def test_memory_between_operations_counts_every_reader(tmp_path: Path) -> None:
    sizes = []
    for readers in (1, 101):
        graph = _native.Graph(1)
        value = conv(graph, 0, 1)
        last = conv(graph, value, 1)
        for _ in range(readers - 1):
            last = conv(graph, value, 1, add=last)
        graph.seal()
        sizes.append(graph.piece_bytes(1000))
    assert sizes[1] - sizes[0] >= 100 * 2 * 1000 * 4  # each its form of the value, and its result


def test_a_program_that_needs_too_much_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_program(tmp_path, "segments")
    Program.load(path)
    monkeypatch.setattr("encodec_fast.program.MAX_PIECE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"encoder: expected .* at most 1000 bytes .* found"):
        Program.load(path)
