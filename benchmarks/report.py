"""What every benchmark prints around its figures: the machine, the versions, Markdown or JSON."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import encodec_fast
from encodec_fast.bench import cpu_name


def parser(doc: str) -> argparse.ArgumentParser:
    """The arguments that every benchmark takes; `doc` is its docstring, a question first."""
    arguments = argparse.ArgumentParser(description=doc.splitlines()[0])
    arguments.add_argument("--json", action="store_true", help="print every measurement as JSON")
    return arguments


def machine(*packages: str) -> dict[str, str]:
    """Date, CPU, load and versions. `packages` are distributions; one not installed is left out."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    facts = {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
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


def publish(as_json: bool, facts: dict[str, str], sections: dict[str, Sequence[Any]]) -> None:
    """Print sections by title, as they stand in RESULTS.md or, with every measurement, as JSON.

    Results are instances of one dataclass per section, whose `cells()` is a row of the table: text
    by column.
    """
    if as_json:
        results = {title: [asdict(r) for r in rows] for title, rows in sections.items()}
        print(json.dumps({"machine": facts, "results": results}, indent=1))
        return
    for title, rows in sections.items():
        print(_markdown(title, facts, [row.cells() for row in rows]))


def _markdown(title: str, facts: dict[str, str], rows: Sequence[dict[str, str]]) -> str:
    lines = [f"### {title}", "", ", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    lines += ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"
