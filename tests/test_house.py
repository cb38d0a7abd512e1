"""The house plan, held by reading imports and includes: what may know what, and how large it gets.

A module that this file does not place is an error: whoever adds one says here where it belongs.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from signals import REPOSITORY

PACKAGE = REPOSITORY / "encodec_fast"
CSRC = REPOSITORY / "csrc"

# A module may import modules of a lower tier when it is loaded, never of its own or a higher one.
TIERS = {
    "_core": 0,
    "_cuda": 0,
    "_native": 1,
    "device": 2,
    "output": 2,
    "sources": 2,
    "store": 2,
    "tensor_file": 2,
    "lanes": 3,
    "program": 3,
    "entropy": 4,
    "entropy_model": 4,
    "segments": 4,
    "streaming": 5,
    "blocks": 6,
    "many": 6,
    "segment_codes": 6,
    "codes": 7,
    "waveforms": 8,
    "ecdc": 7,
    "audio": 7,
    "audio_writer": 8,
    "chunk_header": 8,
    "chunks": 9,
    "payloads": 10,
    "chunk_codes": 11,
    "piece_reader": 12,
    "container": 12,
    "decoding": 13,
    "many_decoding": 13,
    "codec": 14,
    "files": 15,
    "info": 16,
    "pipes": 16,
    "integrations": 17,
    "batch": 17,
    "training": 17,
    "console": 18,
    "__init__": 19,  # also asks `integrations` and `batch` for names on demand
    "bench": 20,
    "cli_models": 21,
    "cli_options": 21,
    "evaluation": 21,
    "cli_evaluation": 22,
    "cli_tokenize": 22,
    "cli_training": 22,
    "cli": 23,
    "__main__": 24,
}
# The wing that imports torch; `models` knows the file formats and nothing else of the base.
TORCH_WING = ("models", "training", "integrations")
MODELS_MAY_IMPORT = {"_native", "program", "entropy", "entropy_model"}
# Upward, and only inside functions: what is loaded when it is needed.
DEFERRED = {
    "codec": {"models.checkpoints", "models.export", "files"},
    "segment_codes": {"models.lm_coder"},
    "cli_models": {"models.checkpoints", "models.export", "models.entropy_export"},
    "evaluation": {"models.checkpoints", "models.export"},
    "models": set(),
    "training": {"codec", "models.export"},
    "batch": {"__version__"},
}
TORCH = {"torch", "torchaudio", "transformers", "encodec", "audiocraft"}

# Directories and files of csrc, each with those it may include.
MAY_INCLUDE = {
    "kernels": {"kernels"},
    "dispatch": {"kernels", "dispatch"},
    "engine": {"kernels", "dispatch", "engine", "entropy"},
    "cuda": {"kernels", "engine", "entropy", "cuda"},
    "entropy": {"entropy", "kernels"},  # kernels: Interval alone
    "bindings": {"kernels", "dispatch", "engine", "entropy", "bindings", "cuda"},
}
# Compiled once per instruction set: a template from here could leave the linker one copy for all.
KERNELS_MAY_INCLUDE = {"cstdint", "cstddef", "immintrin.h", "xmmintrin.h"}
KERNEL_TABLE = CSRC / "kernels" / "table.cpp"  # fills in the row of dispatch.h, once per set

MAX_LINES = 350
LONGER_WITH_REASON = re.compile(r"longer than \d+ lines", re.IGNORECASE)


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPOSITORY / folder).rglob("*.py"))


def sources() -> list[Path]:
    found = python_files("encodec_fast", "tests", "benchmarks")
    return found + sorted([*CSRC.rglob("*.cpp"), *CSRC.rglob("*.h"), *CSRC.rglob("*.cu")])


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Names that a Python file imports, absolute, and whether that happens when it is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node, deferred in _statements(tree, False):
        if isinstance(node, ast.Import):
            yield from ((alias.name, not deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            if module == "encodec_fast":
                yield from ((f"{module}.{alias.name}", not deferred) for alias in node.names)
            else:
                yield module, not deferred


def _statements(node: ast.AST, deferred: bool) -> Iterator[tuple[ast.AST, bool]]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    yield node, deferred
    inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _statements(child, deferred or inside)


def place(module: str) -> str:
    """The wing or the base module that `module`, a name below encodec_fast, belongs to."""
    first = module.partition(".")[0]
    known = first in TIERS or first == "models"
    # Anything else in `from encodec_fast import name` is a public name of the package.
    return first if known or (PACKAGE / f"{first}.py").exists() else "__init__"


@pytest.mark.parametrize("path", python_files("encodec_fast"), ids=lambda p: p.stem)
def test_python_directions(path: Path) -> None:
    name = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
    importer = place(name)
    assert importer in TIERS or importer == "models", (
        f"{name}: give it a tier in tests/test_house.py"
    )
    for imported, at_load in imports(path):
        if not imported.startswith("encodec_fast."):
            continue
        target = imported.removeprefix("encodec_fast.")
        wing = place(target)
        same_wing = wing == importer and (PACKAGE / wing).is_dir()
        if same_wing:
            continue
        if not at_load and any(target.startswith(d) for d in DEFERRED.get(importer, ())):
            continue
        if importer == "models":
            allowed = wing in MODELS_MAY_IMPORT
        elif wing == "models":
            allowed = importer in TORCH_WING
        else:
            allowed = TIERS[wing] < TIERS[importer]
        assert allowed, f"{name} must not import {target}"


@pytest.mark.parametrize("path", python_files("encodec_fast"), ids=lambda p: p.stem)
def test_torch_stays_in_its_wing(path: Path) -> None:
    folder = path.relative_to(PACKAGE).parts[0]
    if folder in TORCH_WING and path != PACKAGE / "models" / "config.py":
        return
    for imported, at_load in imports(path):
        heavy = imported.partition(".")[0] in TORCH or imported.startswith("safetensors.torch")
        assert not (heavy and at_load), f"{path.name} imports {imported} when it is loaded"


def test_the_base_package_imports_without_torch() -> None:
    program = (
        "import sys, encodec_fast, encodec_fast.cli, encodec_fast.__main__, encodec_fast.files\n"
        "import encodec_fast.models.config, encodec_fast.batch.tokenize\n"
        "heavy = {'torch', 'transformers', 'safetensors', 'hypothesis'}\n"
        "heavy |= {'pyarrow', 'fsspec', 'datasets', 'ray'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    # Not from the checkout, whose sources without the native core would come first.
    subprocess.run([sys.executable, "-c", program], cwd=Path(sys.prefix), check=True)


def includes(path: Path) -> list[tuple[str, str]]:
    """(bracket, name) of each include."""
    return re.findall(r'^\s*#\s*include\s*([<"])([^">]+)[">]', path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(CSRC.rglob("*.[ch]*")), ids=lambda p: p.name)
def test_native_directions(path: Path) -> None:
    here = path.relative_to(CSRC)
    room = here.parts[0] if len(here.parts) > 1 else here.stem
    assert room in MAY_INCLUDE, f"{here}: give it a place in tests/test_house.py"
    for bracket, name in includes(path):
        if bracket == "<":
            python = name.startswith("nanobind/") or name == "Python.h"
            assert room == "bindings" or not python, f"{here} includes {name}"
            if room == "kernels":
                assert name in KERNELS_MAY_INCLUDE, f"{here} includes {name}"
            continue
        assert (CSRC / name).is_file(), f"{here}: include {name} from csrc"
        target = Path(name).parts[0] if "/" in name else Path(name).stem
        allowed = target in MAY_INCLUDE[room] or (path == KERNEL_TABLE and target == "dispatch")
        assert allowed, f"{here} must not include {name}"


def test_kernels_use_nothing_of_std_and_allocate_nothing() -> None:
    for path in sorted((CSRC / "kernels").glob("*")):
        code = re.sub(r"//.*", "", path.read_text())
        found = re.findall(r"\bstd::\w+|\bnew\b|\bmalloc\b|\bdelete\b|\bthrow\b", code)
        # Fixed-size integers and libm's fmaf, the oracle's product, are no templates.
        assert set(found) <= {"std::int64_t", "std::size_t", "std::fmaf"}, f"{path.name}: {found}"


def test_no_room_without_a_name() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    for path in sources():
        assert path.stem not in vague, path


@pytest.mark.parametrize("path", sources(), ids=lambda p: p.relative_to(REPOSITORY).as_posix())
def test_files_stay_short(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    reasoned = LONGER_WITH_REASON.search("\n".join(lines[:15]))
    assert len(lines) <= MAX_LINES or reasoned, f"{len(lines)} lines: split it, or say why on top"


def test_files_of_tests_have_names_of_their_own() -> None:
    """pytest imports them by name, so that two of one name stop it."""
    names = [path.name for path in python_files("tests")]
    assert sorted(names) == sorted(set(names))


def test_versions_agree() -> None:
    import encodec_fast

    project = re.search(r'^version = "([^"]+)"', (REPOSITORY / "pyproject.toml").read_text(), re.M)
    latest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    assert project and latest
    assert project[1] == encodec_fast.__version__ == latest[1]
