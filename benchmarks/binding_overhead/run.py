"""What does one call into the native core cost through nanobind, pybind11 or a torch operator?

    python benchmarks/binding_overhead/run.py [--json]

Builds one same function (multiply_add.h: four float32 arrays in, a new one out) three ways in a
temporary folder, compares results and refusals, then times calls. All bindings take turns in
every round of one run. With one element the call is all there is; 320 is one frame. All times are
CPU time, so that another process on the same core counts little. Needs CMake, a C++ compiler, torch
and benchmarks/requirements.txt.
"""

from __future__ import annotations

import importlib.util
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from report import machine, parser, publish

FOLDER = Path(__file__).resolve().parent
FRAME = 320
FRAMES_MS = (FRAME / 48, FRAME / 24)  # at 48 kHz and at 24 kHz
SIZES = (1, FRAME)
ROUNDS = 2001
CALLS = 100  # in a row, of each binding in each round
# The targets that are built once for any number of modules, and the module.
TARGETS = {
    "nanobind": ("nanobind-static", "nanobind_module"),
    "pybind11": (None, "pybind11_module"),
    "torch": (None, "torch_operator"),
}


@dataclass(frozen=True)
class Build:
    """A built module: bytes, and CPU seconds for its library (0 if none) and for itself."""

    file: str
    size: int
    library_seconds: float
    seconds: float


@dataclass(frozen=True)
class Call:
    """A way to the function: takes four vectors of `kind` (np.ndarray or torch.Tensor)."""

    function: Callable[..., Any]
    kind: type
    build: Build | None = None


@dataclass(frozen=True)
class Overhead:
    """CPU microseconds of one way, and of nanobind beside it, by size and round."""

    call: str
    microseconds: dict[int, list[float]]
    nanobind: dict[int, list[float]]
    build: Build | None

    def cells(self) -> dict[str, str]:
        """A row of the table."""
        cells = {"call": self.call}
        for size, times in self.microseconds.items():
            tenths = statistics.quantiles(times, n=10)
            spread = f"({tenths[0]:.2f} to {tenths[-1]:.2f})"
            cells[f"size {size}, µs"] = f"**{statistics.median(times):.2f}** {spread}"
        of_frame = self.microseconds[FRAME]
        ratios = [own / other for own, other in zip(of_frame, self.nanobind[FRAME], strict=True)]
        cells["x nanobind"] = f"**{statistics.median(ratios):.2f}**"
        for milliseconds in FRAMES_MS:
            share = statistics.median(of_frame) / 1e3 / milliseconds
            cells[f"of a {milliseconds:.1f} ms frame"] = f"{share:.3%}"
        return cells | self._build_cells()

    def _build_cells(self) -> dict[str, str]:
        if self.build is None:
            return {"module, KB": "", "build (library + module), CPU s": ""}
        library = f"{self.build.library_seconds:.1f} + " if self.build.library_seconds else ""
        return {
            "module, KB": f"{self.build.size / 1e3:.0f}",
            "build (library + module), CPU s": f"{library}{self.build.seconds:.1f}",
        }


def build(folder: Path) -> dict[str, Build]:
    """Configure and build every module in `folder`."""
    cmake = shutil.which("cmake")
    if cmake is None:
        raise SystemExit("cmake: not found on PATH; it and a C++ compiler build the modules")
    torch_folder = Path(torch.__file__).parent
    configure = [cmake, "-S", str(FOLDER), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}", f"-DTORCH_FOLDER={torch_folder}"]
    _run(configure)
    built = {}
    for binding, (library, module) in TARGETS.items():
        library_seconds = (
            _run([cmake, "--build", str(folder), "--target", library]) if library else 0
        )
        seconds = _run([cmake, "--build", str(folder), "--target", module])
        file = next(folder.glob(f"{module}*.so"))
        built[binding] = Build(str(file), file.stat().st_size, library_seconds, seconds)
    return built


def _run(command: list[str]) -> float:
    """CPU seconds that `command` took; its output is shown when it fails."""
    start = _cpu_seconds_of_children()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}")
    return _cpu_seconds_of_children() - start


def _cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def load(name: str, file: str) -> ModuleType:
    """Import the extension module `name` from `file`."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def calls_of(built: dict[str, Build]) -> dict[str, Call]:
    """Every call to time, by its name in the table."""
    through_nanobind = load("nanobind_module", built["nanobind"].file).multiply_add
    through_pybind11 = load("pybind11_module", built["pybind11"].file).multiply_add
    torch.ops.load_library(built["torch"].file)
    operator = torch.ops.binding_overhead.multiply_add
    schema = "(Tensor a, Tensor b, Tensor c, Tensor d) -> Tensor"

    @torch.library.custom_op("binding_overhead::wrapped", mutates_args=(), schema=schema)
    def wrapped(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(through_nanobind(a.numpy(), b.numpy(), c.numpy(), d.numpy()))

    def numpy_to_operator(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
        wrap = torch.from_numpy
        return operator(wrap(a), wrap(b), wrap(c), wrap(d)).numpy()

    def expression(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
        return a * b + c * d

    return {
        "nanobind": Call(through_nanobind, np.ndarray, built["nanobind"]),
        "pybind11": Call(through_pybind11, np.ndarray, built["pybind11"]),
        "torch operator (C++), tensors": Call(operator, torch.Tensor, built["torch"]),
        "torch operator (C++), numpy in and out": Call(numpy_to_operator, np.ndarray),
        "torch.library.custom_op (Python) around nanobind": Call(wrapped, torch.Tensor),
        "numpy `a * b + c * d`": Call(expression, np.ndarray),
    }


def check(calls: dict[str, Call]) -> None:
    """Results are the same bits everywhere, and the bindings refuse the same arguments alike."""
    for size in (0, 1, 7, 320):
        vectors = vectors_of(size)
        expected = calls["nanobind"].function(*vectors)
        for name, call in calls.items():
            result = np.asarray(call.function(*as_kind(call.kind, vectors)))
            assert result.dtype == np.float32 and result.shape == (size,), name
            assert result.tobytes() == expected.tobytes(), f"{name}: other results at {size}"
    good = vectors_of(8)
    refused = {
        "float64": (good[0].astype(np.float64), TypeError),
        "strided": (vectors_of(16)[0][::2], TypeError),
        "two dimensions": (good[0].reshape(2, 4), TypeError),
        "another length": (vectors_of(9)[0], ValueError),
    }
    for name, call in calls.items():
        for what, (bad, error) in refused.items():
            if call.build is None:
                continue  # a way to one of the others, or numpy, which broadcasts and promotes
            for place in range(4):
                arguments = [*good]
                arguments[place] = bad
                try:
                    call.function(*as_kind(call.kind, arguments))
                except error:
                    continue
                raise AssertionError(f"{name}: takes {what} as argument {place}")


def vectors_of(size: int) -> list[np.ndarray]:
    """Four float32 vectors of `size` values, the same every time."""
    return list(np.random.default_rng(size).standard_normal((4, size), dtype=np.float32))


def as_kind(kind: type, vectors: list[np.ndarray]) -> list[Any]:
    """The vectors as they are, or as tensors that share their memory."""
    return [torch.from_numpy(v) for v in vectors] if kind is torch.Tensor else vectors


def measure(calls: dict[str, Call]) -> dict[str, dict[int, list[float]]]:
    """Microseconds per call by name and size, one mean of CALLS calls for each round.

    The order of names and sizes is a new one in each round.
    """
    timers = {}
    for name, call in calls.items():
        for size in SIZES:
            names: dict[str, Any] = dict(
                zip("abcd", as_kind(call.kind, vectors_of(size)), strict=True)
            )
            names["call"] = call.function
            timer = timeit.Timer("call(a, b, c, d)", timer=time.thread_time, globals=names)
            timers[name, size] = timer
    times: dict[str, dict[int, list[float]]] = {name: {s: [] for s in SIZES} for name in calls}
    order = list(timers)
    shuffle = random.Random(0).shuffle
    for round_number in range(ROUNDS + 1):
        shuffle(order)
        for name, size in order:
            microseconds = timers[name, size].timeit(CALLS) / CALLS * 1e6
            if round_number:  # the first fills the caches
                times[name][size].append(microseconds)
    return times


def main() -> None:
    """Build, check, measure, print."""
    args = parser(__doc__).parse_args()
    torch.set_num_threads(1)
    facts = machine("numpy", "nanobind", "pybind11", "torch")
    with tempfile.TemporaryDirectory() as folder:
        calls = calls_of(build(Path(folder)))
        check(calls)
        times = measure(calls)
    title = f"binding_overhead: four arrays in, one out, median (10 to 90 %) of {ROUNDS} rounds"
    results = [Overhead(n, times[n], times["nanobind"], call.build) for n, call in calls.items()]
    publish(args.json, facts, {title: results})


if __name__ == "__main__":
    main()
