"""The kernels and their executor on an emulated device: the same sources, compiled for the host.

Their arithmetic, index by index, is compared with the CPU's kernels bit for bit, with the threads
of a block in several orders. What only a GPU can show is in test_gpu.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from emulated import HERE, package, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(tmp_path_factory.getbasetemp() / "emulated")


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_results_are_those_of_the_cpu(folder: Path, order: str) -> None:
    """A barrier that is missing would give other results in one of the orders."""
    script = str(HERE / "agreement_on_device.py")
    seed = {"forward": "1", "backward": "2", "shuffled": "3"}[order]
    done = run(folder, script, "--seed", seed, EF_EMULATED_ORDER=order)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == 5, done.stdout


def test_large_tiles(folder: Path) -> None:
    """On a device of one multiprocessor no product is too small for the large tiles."""
    script = str(HERE / "agreement_on_device.py")
    done = run(
        folder, script, "--kinds", "reflect", "--wide", "--seed", "4", EF_EMULATED_PROCESSORS="1"
    )
    assert done.returncode == 0, done.stderr


def test_many_streams(folder: Path) -> None:
    """More than one block of the recurrence's larger shape."""
    script = str(HERE / "agreement_on_device.py")
    done = run(folder, script, "--kinds", "constant", "--lanes", "70", "--seed", "5")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("processors", ["1", "4", "16"])
def test_codebooks(folder: Path, processors: str) -> None:
    """Shapes of codebooks that no tiny model has, in blocks of 128, 32 and 16 rows, through
    addresses as PyTorch's tensors give."""
    done = run(folder, str(HERE / "codebooks_on_device.py"), EF_EMULATED_PROCESSORS=processors)
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout


@pytest.mark.parametrize("order", ["backward", "shuffled"])
def test_products(folder: Path, order: str) -> None:
    """Every shape of tile, with rows and results as vectors and not."""
    done = run(
        folder,
        str(HERE / "products_on_device.py"),
        EF_EMULATED_PROCESSORS="1",
        EF_EMULATED_ORDER=order,
    )
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout


def test_elements(folder: Path) -> None:
    """ELU, sigmoid and tanh of numbers of every kind; LSTM layers of every shape of block."""
    done = run(folder, str(HERE / "elements_on_device.py"), EF_EMULATED_ORDER="shuffled")
    assert done.returncode == 0, done.stderr
    assert "equal" in done.stdout


USE = """
import sys
from encodec_fast.codec import Codec
import numpy as np
codec = Codec.load("nano_24khz", device="cuda")
stream = codec.stream_encoder(batch=2)
for turn in range(3):
    try:
        stream.push(np.zeros((2, 1, 320), np.float32))
        print("went on")
    except OSError as error:
        print("OSError:", error)
    except ValueError as error:
        print("ValueError:", error)
        stream.reset()
"""


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nodriver", "no NVIDIA driver is installed"),
        ("driver", "the driver is too old: expected one for CUDA 13.0 or later, found CUDA 11.4"),
        ("device", "the driver finds no device"),
        ("fork", "a process that was forked after CUDA was in use cannot use it"),
        ("code", "this build has no machine code for this device"),
        ("malloc:1", "out of memory: asked for"),
    ],
)
def test_a_device_that_cannot_be_used_says_why(folder: Path, fault: str, message: str) -> None:
    done = run(folder, "-c", USE, EF_EMULATED_FAIL=fault)
    assert done.returncode != 0
    assert "DeviceError" in done.stderr and message in done.stderr, done.stderr


def test_after_running_out_of_memory_streams_go_on_once_they_are_reset(folder: Path) -> None:
    done = run(folder, "-c", USE, EF_EMULATED_FAIL="malloc:12")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "out of memory" in lines[0], lines
    assert lines[1].startswith("ValueError: stream 0: an earlier call failed"), lines
    assert lines[2] == "went on", lines


def test_a_broken_device_is_reported_by_every_call(folder: Path) -> None:
    """An illegal address, say: nothing that follows may look like a result."""
    done = run(folder, "-c", USE, EF_EMULATED_FAIL="launch:9")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "illegal memory access" in lines[0], lines
    assert lines[1].startswith("ValueError"), lines
    assert "illegal memory access" in lines[2], lines
