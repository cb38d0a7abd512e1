"""YAML as configurations have it: numbers, repeated keys and strings are what people mean."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with two repairs: 1e-3 is a number (YAML 1.2), and a key given twice is an error."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping's keys and values."""
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", node.start_mark
                )
        found: dict[Any, Any] = super().construct_mapping(node, deep)
        return found


class Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Quotes the strings that `Loader` would take for something else."""


for _resolver in (Loader, Dumper):
    _resolver.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def parse(text: str, where: str) -> Any:
    """The value that YAML text stands for. Raises ValueError beginning with `where`."""
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2024-13-40
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where}: not valid YAML: {reason}") from None


def read(path: Path) -> dict[str, Any]:
    """The keys and values of a file, an empty one's are none. Raises ValueError, and OSError where
    it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected text in UTF-8: {error}") from None
    tree = parse(text, str(path))
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: expected keys with values, found {shown(tree)}")
    return tree


def write(tree: object) -> str:
    """Plain values as YAML that `parse` reads back to equal ones."""
    text: str = yaml.dump(tree, Dumper=Dumper, sort_keys=False, allow_unicode=True)
    return text


def shown(value: object) -> str:
    """A value as error messages have it: as it is written in YAML, long ones by what they are."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "keys with values"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value) if isinstance(value, str) else str(value)
