"""Graphs on whole signals that are on cuda:0 already, block by block, against the CPU. A script:
see agreement_on_device.py."""

from __future__ import annotations

import argparse
import ctypes
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from agreement_on_device import KINDS, random_program, same

from encodec_fast import _cuda, _native
from encodec_fast.integrations.network import Network
from encodec_fast.lanes import block_bounds

LANES = 5
EMULATED = _cuda.device_info(0)[0] == "emulated"


def upload(array: npt.NDArray[Any]) -> tuple[Any, int]:
    """Something that holds a copy on the device, and its address. On a GPU it is a tensor of
    PyTorch's, on an emulated device an array of the host."""
    if EMULATED:
        copy = array.copy()
        return copy, copy.ctypes.data
    import torch

    tensor = torch.from_numpy(array).to("cuda:0")
    torch.cuda.synchronize()
    return tensor, tensor.data_ptr()


def download(held: Any) -> npt.NDArray[Any]:
    """The array behind what was done on the default stream."""
    if EMULATED:
        ctypes.CDLL(_cuda.__file__).ef_emulated_finish()
        return np.asarray(held)
    return np.asarray(held.cpu().numpy())


def ends_of(graph: _native.Graph, rows: int, frames: int) -> list[int]:
    """Where blocks of `frames` frames end."""
    if not graph.streams:
        return [rows]
    first = graph.start_rows
    return [end for _, end in block_bounds(rows, graph.down, first, last=True, frames=frames)]


def out_shape(graph: _native.Graph, batch: int, rows: int) -> tuple[int, int, int]:
    return batch, graph.out_channels, -(-rows * graph.up // graph.down)


def check(rng: np.random.Generator, graph: _native.Graph) -> None:
    """Calls of one native: batches and lengths change, repeat, and come back."""
    device = _cuda.SignalNetwork(_cuda.DeviceGraph(graph, 0), LANES)
    cpu = Network(graph)
    calls = [
        (int(rng.integers(1, LANES + 1)), int(rng.integers(1, 60 * graph.down))) for _ in "123"
    ]
    calls += [(2, 1), calls[0], calls[0], (LANES, 7 * graph.down), (1, 200 * graph.down)]
    for batch, rows in calls:
        signals = rng.standard_normal((batch, graph.in_channels, rows)).astype(np.float32)
        held, place = upload(signals)
        out, out_place = upload(np.full(out_shape(graph, batch, rows), np.nan, np.float32))
        ends = ends_of(graph, rows, int(rng.integers(1, 20)))
        device.run(place, out_place, batch, rows, ends, 0)
        same(f"{batch} of {rows}", [cpu(signals, 1)], [download(out)])
        same("signals as they were", [signals], [download(held)])


def check_refusals(graph: _native.Graph) -> None:
    device = _cuda.SignalNetwork(_cuda.DeviceGraph(graph, 0), LANES)
    rows = 40 * graph.down
    ends = ends_of(graph, rows, 64)
    held, place = upload(np.zeros((1, graph.in_channels, rows), np.float32))
    out, out_place = upload(np.zeros(out_shape(graph, 1, rows), np.float32))
    host = np.zeros(1 << 16, np.float32)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: device.run(place, out_place, 0, rows, ends, 0), "batch: expected 1..5, found 0"),
        (lambda: device.run(place, out_place, 6, rows, ends, 0), "batch: expected 1..5, found 6"),
        (lambda: device.run(place, out_place, 1, 0, [0], 0), "rows: expected 1..68719476736"),
        (lambda: device.run(place, out_place, 2, 1 << 36, [1 << 36], 0), "rows: expected 1..34359"),
        (lambda: device.run(place, out_place, 1, rows, [], 0), f"to be {rows}, found 0"),
        (lambda: device.run(place, out_place, 1, rows, [rows + 1], 0), f"to be {rows}, found"),
        (lambda: device.run(place, out_place, 1, rows, [rows, rows], 0), "ends: expected rising"),
        (lambda: device.run(0, out_place, 1, rows, ends, 0), "in: expected an address aligned"),
        (lambda: device.run(place + 1, out_place, 1, rows, ends, 0), "in: expected an address"),
        (lambda: device.run(place, out_place + 2, 1, rows, ends, 0), "out: expected an address"),
        (lambda: _cuda.SignalNetwork(_cuda.DeviceGraph(graph, 0), 0), "expected 1..65536, found 0"),
    ]
    if not EMULATED:  # whose device has the host's memory
        address = host.ctypes.data
        calls.append((lambda: device.run(address, out_place, 1, rows, ends, 0), "of cuda:0"))
        calls.append((lambda: device.run(place, address, 1, rows, ends, 0), "of cuda:0"))
    if graph.streams and graph.down > 1:  # a block that ends within a frame
        bad = [2 * graph.start_rows + 1, rows]
        calls.append((lambda: device.run(place, out_place, 1, rows, bad, 0), "expected"))
    for call, message in calls:
        try:
            call()
        except ValueError as error:
            assert message in str(error), f"{error}: expected {message}"
        else:
            raise AssertionError(f"no error: {message}")
    device.run(place, out_place, 1, rows, ends, 0)
    expected = Network(graph)(np.zeros((1, graph.in_channels, rows), np.float32), 1)
    same("after the refusals", [expected], [download(out)])
    del held


def check_order(rng: np.random.Generator, graph: _native.Graph) -> None:
    """What comes before on the caller's stream is there, and what comes after finds the result:
    the emulated device does either as late as it may (EF_EMULATED_STREAMS)."""
    library = ctypes.CDLL(_cuda.__file__)
    device = _cuda.SignalNetwork(_cuda.DeviceGraph(graph, 0), LANES)
    rows = 30 * graph.down

    def copy(to: npt.NDArray[Any], source: npt.NDArray[Any]) -> None:
        places = ctypes.c_void_p(to.ctypes.data), ctypes.c_void_p(source.ctypes.data)
        library.ef_emulated_copy(*places, ctypes.c_size_t(source.nbytes))

    for _ in range(3):
        signals = rng.standard_normal((2, graph.in_channels, rows)).astype(np.float32)
        held = np.full_like(signals, np.nan)
        out = np.full(out_shape(graph, 2, rows), np.nan, np.float32)
        result, later = np.zeros_like(out), np.zeros_like(signals)
        copy(held, signals)
        place, out_place = held.ctypes.data, out.ctypes.data
        device.run(place, out_place, 2, rows, ends_of(graph, rows, 8), 0)
        copy(result, out)
        copy(held, later)  # the input is the caller's again
        library.ef_emulated_finish()
        same("order", [Network(graph)(signals, 1)], [result])
        assert not held.any()
    library.ef_emulated_capture(True)
    try:
        device.run(place, out_place, 2, rows, ends_of(graph, rows, 8), 0)
    except ValueError as error:
        assert "stream: is being captured into a CUDA graph" in str(error), error
    else:
        raise AssertionError("captured")
    finally:
        library.ef_emulated_capture(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as folder:
            program = random_program(Path(folder), rng, kind, False)
        for graph in (program.encoder, program.decoder):
            check(rng, graph)
            check_refusals(graph)
            if EMULATED:
                check_order(rng, graph)
        print(f"{kind}: equal", flush=True)


if __name__ == "__main__":
    main()
