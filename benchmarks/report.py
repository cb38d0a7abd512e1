"""What every benchmark prints around its figures: the machine, the versions, a Markdown table."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

import encodec_fast


def machine(*packages: str) -> dict[str, str]:
    """Date, CPU, load and versions. `packages` are distributions; one not installed is left out."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    facts = {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu_name(),
        "cores": str(os.cpu_count()),
        "load before": f"{load:.1f}",
        "isa": encodec_fast.cpu_info()["isa"],
        "python": platform.python_version(),
        "encodec-fast": encodec_fast.__version__,
    }
    for name in packages:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts


def markdown(
    title: str, facts: dict[str, str], header: Sequence[str], rows: Sequence[Sequence[str]]
) -> str:
    """A section as it stands in RESULTS.md."""
    lines = [f"### {title}", "", ", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.machine()
