"""Hostile and unusual program files: each is refused with a ValueError, or runs and keeps the
determinism contract. Also run under the sanitizers."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from composed import Op, Pick, compose
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain import run_graph
from programs import Tensors, describe, tiny_program, write_program

from encodec_fast import _native
from encodec_fast.codec import Codec
from encodec_fast.program import Program, read_header

KEY = "encodec_fast.program"
# What a field may be replaced with, besides other fields' values.
HOSTILE: list[Any] = [
    *(None, True, False, "", "conv", "lstm", "conv_transpose", "reflect", "constant", "codebooks"),
    *("e1.weight", "F16", "BF16", "I64", "\ud800", "../x", "x" * 5000, [], {}, [[]], [{}], [1, 2]),
    *(0, -1, 1, 2, 3, 5, 7, 63, 64, 100, 4095, 4096, 4097, 8192, 8193, 65535, 65536, 65537),
    *((1 << 20) - 1, 1 << 20, 1 << 21, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 40, (1 << 62) // 3),
    *((1 << 63) - 1, 1 << 63, 1 << 64, 10**30, -(1 << 31), -(1 << 63), -(10**30)),
    *(0.0, -0.0, 0.5, 1.0, 2.5, -1.5, 1e-320, 1e-45, 1e300, float("nan"), float("inf")),
    *([0, 0], [6, 0], [-1, 7], [0, 1 << 62], [1 << 40, 1 << 40], [[3.0, 1]], [[1e5, 4]], [3, [4]]),
]


def loaded(path: Path) -> Program | None:
    """The program, or None if it is refused as it should be."""
    try:
        program = Program.load(path)
    except ValueError:
        return None
    assert read_header(path) == program.header
    return program


def exercise(program: Program) -> None:
    """Codes a short clip; only ValueErrors may come out of it."""
    header = program.header
    if header.hop * header.channels > 1 << 16 or program.encoder.start_rows > 1 << 20:
        return  # legal, but a frame alone takes long
    codec = Codec(program)
    samples = 5 * header.hop + 3
    wav = np.sin(np.arange(header.channels * samples, dtype=np.float32))
    wav = wav.reshape(header.channels, samples)
    try:
        codes = codec.encode(wav)
        assert all(int(c.max(initial=0)) < header.codebook_size for c in codes.codes)
        assert codec.decode(codes).shape == wav.shape
    except ValueError:
        return


def split(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The table, the program in it and the tensors of a valid file."""
    (length,) = struct.unpack("<Q", data[:8])
    table = json.loads(data[8 : 8 + length])
    return table, json.loads(table.pop("__metadata__")[KEY]), data[8 + length :]


def joined(table: dict[str, Any], program: Any, tensors: bytes) -> bytes:
    text = json.dumps({"__metadata__": {KEY: json.dumps(program)}, **table}).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) inside a JSON value."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield value, key
        yield from places(value[key])


def small_program(folder: Path, seed: int) -> bytes:
    kind = ("reflect", "constant", "segments", "ahead")[seed % 4]
    return tiny_program(folder, kind, channels=1 + seed % 2).read_bytes()


@pytest.mark.parametrize("seed", range(4))
def test_changed_bytes(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    original = small_program(tmp_path, seed)
    header = 8 + struct.unpack("<Q", original[:8])[0]
    path = tmp_path / "changed"
    for trial in range(250):
        data = bytearray(original)
        end = header if trial % 5 else len(data)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(8, end))
            data[at] = rng.choice(np.frombuffer(b'0123456789-.eE"[]{},:ntf\x00\xff', np.uint8))
        path.write_bytes(data)
        if (program := loaded(path)) is not None:
            exercise(program)


@pytest.mark.parametrize("seed", range(8))
def test_replaced_fields(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    original = split(small_program(tmp_path, seed))
    path = tmp_path / "replaced"
    for _ in range(250):
        table, program, tensors = copy.deepcopy(original)
        for _ in range(int(rng.integers(1, 3))):
            found = list(places(program)) + list(places(table))[:: int(rng.integers(1, 4))]
            container, key = found[rng.integers(len(found))]
            choice = rng.random()
            if choice < 0.6:
                container[key] = HOSTILE[rng.integers(len(HOSTILE))]
            elif choice < 0.9:
                other, name = found[rng.integers(len(found))]
                container[key] = copy.deepcopy(other[name])
            else:
                del container[key]
        path.write_bytes(joined(table, program, tensors))
        if (read := loaded(path)) is not None:
            exercise(read)


@pytest.mark.parametrize("seed", range(4))
def test_rearranged_operations(tmp_path: Path, seed: int) -> None:
    """Operations swapped, repeated, dropped and reconnected: cycles and references ahead."""
    rng = np.random.default_rng(200 + seed)
    original = split(small_program(tmp_path, seed))
    path = tmp_path / "rearranged"
    for trial in range(150):
        table, program, tensors = copy.deepcopy(original)
        ops = program["encoder" if trial % 2 else "decoder"]
        for _ in range(int(rng.integers(1, 3))):
            a, b = rng.integers(len(ops), size=2)
            change = rng.integers(5)
            if change == 0:
                ops[a], ops[b] = ops[b], ops[a]
            elif change == 1:
                ops.insert(b, copy.deepcopy(ops[a]))
            elif change == 2 and len(ops) > 1:
                del ops[a]
            else:
                ops[a]["input" if change == 3 else "add"] = int(rng.integers(-1, len(ops) + 2))
        path.write_bytes(joined(table, program, tensors))
        if (read := loaded(path)) is not None:
            exercise(read)


def test_lying_lengths_and_overlaps(tmp_path: Path) -> None:
    data = small_program(tmp_path, 0)
    path = tmp_path / "lying"
    for length in (0, 1, 2, 9, len(data) - 9, len(data) - 8, len(data), 1 << 22, 1 << 63, -1):
        path.write_bytes(struct.pack("<Q", length % (1 << 64)) + data[8:])
        for read in (Program.load, read_header):
            with pytest.raises(ValueError):
                read(path)
    table, program, tensors = split(data)
    for entry in table.values():  # all on top of each other: legal, if nothing is out of bounds
        begin, end = entry["data_offsets"]
        entry["data_offsets"] = [0, end - begin]
    path.write_bytes(joined(table, program, tensors))
    exercise(Program.load(path))


def cut(pick: Pick, rows: int, unit: int, start: int) -> list[int]:
    """The ends of random blocks that a stream of `rows` rows may be given in."""
    ends = [max(unit * (1 + pick(5)), start)]
    while ends[-1] < rows:
        ends.append(ends[-1] + unit * (1 + pick(7)))
    return [*(end for end in ends if end < rows), rows]


def in_blocks(
    coder: Any, rows: npt.NDArray[Any], ends: list[int], n_q: tuple[int, ...]
) -> npt.NDArray[Any]:
    out, begin = [], 0
    for index, end in enumerate(ends):
        block = np.ascontiguousarray(rows[:, begin:end])
        out.append(coder.run([block], [index + 1 == len(ends)], [1.0], *n_q)[0])
        begin = end
    return np.concatenate(out, axis=1)


@settings(
    max_examples=180,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_composed_programs_keep_the_contract(tmp_path: Path, data: st.DataObject) -> None:
    """Any legal graph: a stream in blocks, and beside other lanes, gives what it gives as a whole,
    and again after it ended."""

    def pick(count: int) -> int:
        return data.draw(st.integers(0, count - 1)) if count > 1 else 0

    kind = ("causal", "ahead", "segments")[pick(3)]
    header, tensors = compose(pick, kind)
    program = Program.load(write_program(tmp_path / "composed", header, tensors))
    exercise(program)
    low_latency = kind == "causal" and pick(2) == 1
    rng = np.random.default_rng(pick(1000))
    length = 1 + pick(12 * header["hop"] + 9)
    audio = rng.standard_normal((header["channels"], length)).astype(np.float32)
    frames = -(-length // header["hop"])
    codes = rng.integers(0, tensors["books"].shape[1], (3, frames)).astype(np.uint16)
    for make, graph, rows, n_q in (
        (_native.Encoder, program.encoder, audio, (3,)),
        (_native.Decoder, program.decoder, codes, ()),
    ):
        one = make(graph, program.codebooks, 1, low_latency)
        whole = one.run([rows], [True], [1.0], *n_q)[0]
        start = 1 if low_latency else graph.start_rows
        ends = [rows.shape[1]]
        if graph.streams:
            ends = cut(pick, rows.shape[1], graph.down, start)
        assert graph.streams or kind == "segments"
        if len(ends) > 1 and ends[-1] % graph.down == 0 and pick(2):
            ends.append(ends[-1])  # the stream ends without a new row
        assert in_blocks(one, rows, ends, n_q).tobytes() == whole.tobytes()
        other = rows[:, : 1 + pick(rows.shape[1])].copy()
        three = make(graph, program.codebooks, 3, low_latency)
        beside = three.run([other, rows[:, :0], rows], [True] * 3, [1.0] * 3, *n_q)
        assert beside[2].tobytes() == whole.tobytes() and beside[1].shape[1] == 0
        assert beside[0].tobytes() == one.run([other], [True], [1.0], *n_q)[0].tobytes()


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_composed_programs_do_what_they_say(tmp_path: Path, data: st.DataObject) -> None:
    """Both graphs of a program that streams, in random blocks, against plain numpy."""

    def pick(count: int) -> int:
        return data.draw(st.integers(0, count - 1)) if count > 1 else 0

    header, tensors = compose(pick, ("ahead", "causal")[pick(4) // 3])
    program = Program.load(write_program(tmp_path / "composed", header, tensors))
    rng = np.random.default_rng(pick(1000))
    for side, graph in (("encoder", program.encoder), ("decoder", program.decoder)):
        length = 2 + pick(8 * graph.down + 20)
        rows = rng.standard_normal((length, graph.in_channels)).astype(np.float32)
        # A decoder of other codebooks, whose entries are the rows: it shows what any graph gives.
        native = _native.Decoder(graph, _native.Codebooks(rows[None]), 1, False)
        codes = np.arange(length, dtype=np.uint16)[None]
        ends = cut(pick, length, graph.down, graph.start_rows)
        found = in_blocks(native, codes, ends, ()).T
        expected = run_graph(header[side], tensors, rows)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_long_lists_are_read_in_one_pass(tmp_path: Path) -> None:
    """Work that grew with the square of these would take the better part of an hour."""
    header, tensors = describe("reflect")
    path = tmp_path / "long"
    header["bandwidths"] = [[1 + i / 1e6, 1] for i in range(150_000)]
    assert len(Program.load(write_program(path, header, tensors)).header.bandwidths) == 150_000
    table, program, data = split(small_program(tmp_path, 0))
    table["codebooks"]["shape"] = [1 << 39] * 250_000
    path.write_bytes(joined(table, program, data))
    with pytest.raises(ValueError, match="codebooks: expected a shape of at most 3 dimensions"):
        Program.load(path)


def test_memory_of_many_large_values_is_bounded(tmp_path: Path) -> None:
    """Each result alone is small enough; together they made 64 frames take 3 GB."""
    tensors: Tensors = {"books": np.eye(2, 1, dtype=np.float32)[None]}

    def up(source: int, width: int, channels: int, stride: int) -> Op:
        tensors[f"w{source}"] = np.zeros((2 * width, stride * channels), np.float32)
        tensors[f"b{source}"] = np.zeros(channels, np.float32)
        weights = {"weight": f"w{source}", "bias": f"b{source}", "norm": None}
        return {
            "op": "conv_transpose",
            "input": source,
            "elu": False,
            "stride": stride,
            "trim_left": 0,
            **weights,
        }

    header, _ = describe("constant")
    tensors |= {"w": np.zeros((4096, 1), np.float32), "b": np.zeros(1, np.float32)}
    down = {"kernel": 4096, "stride": 4096, "pad": [0, 0], "pad_mode": "constant", "norm": None}
    down |= {"op": "conv", "input": 0, "elu": False, "add": None, "weight": "w", "bias": "b"}
    decoder = [up(0, 1, 1, 64), up(1, 1, 16, 64), *(up(v, 16, 16, 1) for v in range(2, 202))]
    header |= {"hop": 4096, "bandwidths": [[1.0, 1]], "codebooks": "books", "encoder": [down]}
    header["decoder"] = [*decoder, up(202, 16, 1, 1)]
    with pytest.raises(ValueError, match=r"decoder operation \d+: .*too many values per input row"):
        Program.load(write_program(tmp_path / "large", header, tensors))
