"""The language model and its coder on an emulated device (test_emulated.py): bytes, codes and
probabilities are the CPU's, bit for bit, and so is what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulated import HERE, package, run

SCRIPT = str(HERE / "lm_on_device.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return package(tmp_path_factory.getbasetemp() / "emulated")


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_coders_are_those_of_the_cpu(folder: Path, order: str) -> None:
    """A barrier that is missing would give other results in one of the orders."""
    seed = {"forward": "1", "backward": "2", "shuffled": "3"}[order]
    done = run(folder, SCRIPT, "--seed", seed, EF_EMULATED_ORDER=order)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == 10, done.stdout


def test_many_streams_in_several_blocks(folder: Path) -> None:
    """More steps than a block holds, and the large tiles of the products."""
    options = ["--shapes", "odd", "--lanes", "40", "--calls", "2", "--steps", "300"]
    done = run(folder, SCRIPT, *options, "--seed", "5", EF_EMULATED_PROCESSORS="1")
    assert done.returncode == 0, done.stderr


def test_documented_arithmetic_and_refusals(folder: Path) -> None:
    """The CPU's own tests; the others of them take minutes here (test_gpu.py runs all)."""
    chosen = "documented or streams or arrays or frames or numbers or models or longer"
    done = run(folder, str(HERE / "lm_rules_on_device.py"), "-k", chosen)
    assert done.returncode == 0, done.stdout


FAULTS = """
import os
import numpy as np
from language_models import Sizes, random_codes, random_model
from encodec_fast import _core, _cuda

model, codes = random_model(0, Sizes()), random_codes(0, 3, 20, 19)
weights = _cuda.DeviceLanguageModel(model, 0)
calls = 0
for method in ("encode", "decode"):
    for skip in range(1, 30):
        cpu, device = _core.LmCoder(model, 3, 4), _cuda.LmCoder(weights, 3, 4)
        data = cpu.encode([0], [codes])
        assert device.encode([0], [codes]) == data
        fresh = _core.LmCoder(model, 3, 4).encode([1, 2, 3], [codes] * 3)
        given = [codes] * 3 if method == "encode" else fresh
        more = [] if method == "encode" else [[20] * 3]
        os.environ["EF_EMULATED_FAIL"] = f"malloc:{calls + skip}"
        try:
            getattr(device, method)([1, 2, 3], given, *more)
            failed = False
        except OSError as error:
            assert "out of memory" in str(error), error
            failed = True
        del os.environ["EF_EMULATED_FAIL"]
        if not failed:
            print(f"{method}: {skip - 1} faults")
            calls += skip - 1
            break
        calls += skip
        try:
            device.encode([1], [codes])
            raise SystemExit("a stream that failed went on")
        except ValueError as error:
            assert "must be reset" in str(error), error
        device.reset([1, 2, 3])
        assert device.encode([0, 1, 2, 3], [codes] * 4) == cpu.encode([0, 1, 2, 3], [codes] * 4)
        device.reset([1, 2, 3])
        found = device.decode([1, 2, 3], fresh, [20] * 3)
        assert all(np.array_equal(f, codes) for f in found)
"""


def test_after_running_out_of_memory_streams_go_on_once_they_are_reset(folder: Path) -> None:
    """Wherever a call runs out of it; the streams that were not in the call go on at once."""
    done = run(folder, "-c", FAULTS)
    assert done.returncode == 0, done.stderr
    faults = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(faults) == 2 and min(faults) >= 3, done.stdout


USE = """
from language_models import Sizes, random_codes, random_model
from encodec_fast import _native
from encodec_fast.codec import Codec

program = Codec.load("nano_24khz", device="cuda").program
model, codes = random_model(0, Sizes()), random_codes(0, 2, 9, 19)
made = []
kind = program.device._cuda.DeviceLanguageModel
class Counted:
    LmCoder = program.device._cuda.LmCoder
    def DeviceLanguageModel(self, lm, number):
        made.append(lm)
        return kind(lm, number)
program.device._cuda = Counted()
expected = _native.LmCoder(model, 2, 3).encode([2], [codes])
for _ in range(3):
    assert program.device.new_lm_coder(model, 2, 3).encode([2], [codes]) == expected
assert made == [model]
for arguments in ((model, 4, 3), (model, 2, 0), (model, 2, 65537)):
    try:
        program.device.new_lm_coder(*arguments)
    except ValueError as error:
        print(error)
"""


def test_weights_are_uploaded_once(folder: Path) -> None:
    done = run(folder, "-c", USE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "n_q: expected 1..3, found 4",
        "batch: expected 1..65536, found 0",
        "batch: expected 1..65536, found 65537",
    ]


BROKEN = """
from language_models import Sizes, random_codes, random_model
from encodec_fast import _cuda

coder = _cuda.LmCoder(_cuda.DeviceLanguageModel(random_model(0, Sizes()), 0), 3, 2)
for _ in range(2):
    try:
        coder.decode([0, 1], [b"abcdefgh"] * 2, [9, 9])
    except OSError as error:
        print(error)
    coder.reset([0, 1])
"""


def test_a_broken_device_is_reported_by_every_call(folder: Path) -> None:
    done = run(folder, "-c", BROKEN, EF_EMULATED_FAIL="launch:30")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 and all("illegal memory access" in line for line in lines), lines
