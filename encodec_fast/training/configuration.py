"""Settings of a training run: frozen dataclasses, filled from YAML files and `key=value` overrides.

    settings = load_settings(LmSettings, "lm_nano_24khz", ["audio=DIR", "out=DIR", "lr=3e-3"])

A field may be bool, int, float, str, a nested dataclass, tuple[X, ...], tuple[X, Y], dict[str, X],
or a union of these and None. A file names what differs from the defaults.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from encodec_fast.training import yaml_text
from encodec_fast.training.yaml_text import shown

CONFIGS_FOLDER = Path(__file__).parent / "configs"
TASKS = ("codec", "lm")
TYPED = "command line"  # where overrides come from
TASK = "task"  # the key that says which trainer a file is for; no field of any settings

_UNKNOWN = "unknown key "
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    NoneType: "null",
}

Settings = TypeVar("Settings")


class _Override(str):
    """The right side of an override, as it was typed."""


def config_names() -> list[str]:
    """The names of the configurations that come with the package."""
    return sorted(path.stem for path in CONFIGS_FOLDER.glob("*.yaml"))


def find_config(source: str | Path) -> Path:
    """The file of a configuration: `source` is its path, or the name of one of the package's.

    Raises FileNotFoundError naming the nearest of those.
    """
    path = Path(source)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise FileNotFoundError(f"{source}: there is no such configuration file")
        return path
    names = config_names()
    if str(source) not in names:
        raise FileNotFoundError(
            f"{source}: expected a YAML file or one of {', '.join(names)}"
            + "".join(f"; did you mean {name}?" for name in _close(str(source), names))
        )
    return CONFIGS_FOLDER / f"{source}.yaml"


def read_task(source: str | Path) -> str:
    """What a configuration trains: its key `task`, "codec" or "lm". Raises as `load_settings`."""
    path = find_config(source)
    task = yaml_text.read(path).get(TASK)
    if task not in TASKS:
        raise ValueError(f"{path}: {TASK}: expected one of {', '.join(TASKS)}, found {shown(task)}")
    return str(task)


def load_settings(
    kind: type[Settings], source: str | Path, overrides: Sequence[str] = ()
) -> Settings:
    """Settings of the dataclass `kind`: its defaults, then a file, then `overrides`.

    source: a YAML file, or the name of one of the package's. overrides: `a.b=value` with a YAML
    value, for a string the text as it stands; `a.0.b` is in the first item of the list `a`, and
    `a.1.5` is the item "1.5" of `a`, a dict of numbers. The file's key `task` is not the settings'
    (see `read_task`). Raises ValueError for unknown keys (with the nearest valid one), wrong types,
    missing keys and values that the settings refuse, naming the file, or the command line for an
    override, and the dotted key; OSError for a file that cannot be read.
    """
    path = find_config(source)
    tree = yaml_text.read(path)
    tree.pop(TASK, None)
    typed = _Builder(TYPED, kind)
    keys = []
    for override in overrides:
        key, separator, value = override.partition("=")
        keys.append(key.strip())
        if not separator or not keys[-1]:
            raise ValueError(f"{TYPED}: expected key=value, found {override!r}")
        typed.override(tree, keys[-1], _Override(value))
    built: Settings = _Builder(str(path), kind, keys).build(kind, tree, None, "")
    return built


def as_yaml(settings: object) -> str:
    """The settings as a YAML file that `load_settings` reads back to equal ones."""
    return yaml_text.write(_tree(settings))


def _tree(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _tree(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.init
        }
    if isinstance(value, Mapping):
        return {key: _tree(item) for key, item in value.items()}
    return [_tree(item) for item in value] if isinstance(value, tuple) else value


def _close(word: str, valid: Iterable[str]) -> list[str]:
    """The word of `valid` that is nearest, if one is near."""
    return difflib.get_close_matches(word, list(valid), n=1, cutoff=0.5)


def _members(expected: Any) -> tuple[Any, ...]:
    """The types that a union allows; of any other type, itself."""
    return get_args(expected) if get_origin(expected) in (Union, UnionType) else (expected,)


def _named(expected: Any) -> str:
    """What a user writes for a type."""
    if len(_members(expected)) > 1:
        return " or ".join(_named(member) for member in _members(expected))
    if dataclasses.is_dataclass(expected) or get_origin(expected) is dict:
        return "keys with values"
    if get_origin(expected) is tuple:
        item = get_args(expected)[0]
        first = next(iter(_fields(item)), "") if dataclasses.is_dataclass(item) else ""
        return f"a list of keys with values ([{{{first}: VALUE}}])" if first else "a list"
    return _WORDS[expected]


def _nested(expected: Any) -> Any:
    """The dataclass, dict or tuple type that `expected` is or allows, or None."""
    for member in _members(expected):
        if dataclasses.is_dataclass(member) or get_origin(member) in (dict, tuple):
            return member
    return None


def _first_key(expected: Any, dotted: str) -> tuple[str, str | None]:
    """The part of a dotted key that names something in an `expected`, and the part below that. In
    a dict whose values have nothing below them a name may itself have dots ("1.5")."""
    kind = _nested(expected)
    if get_origin(kind) is dict and _nested(get_args(kind)[1]) is None:
        return dotted, None
    key, separator, below = dotted.partition(".")
    return key, below if separator else None


def _fields(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields by name."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def _keys(kind: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a dataclass."""
    for name, expected in _fields(kind).items():
        yield prefix + name
        nested = _nested(expected)
        if dataclasses.is_dataclass(nested):
            yield from _keys(nested, f"{prefix}{name}.")


def _default(kind: Any, name: str, base: object) -> Any:
    """What a field is where it is not given: that of `base`, an instance, if it is one, else the
    class's default, else MISSING."""
    if isinstance(base, kind):
        return getattr(base, name)
    (field,) = (field for field in dataclasses.fields(kind) if field.name == name)
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


class _Builder:
    """Turns trees of plain values into the settings `root`; its errors begin with `source`, or
    `TYPED` where they are about a key of `typed`."""

    def __init__(self, source: str, root: Any, typed: Sequence[str] = ()) -> None:
        self._source = source
        self._root = root
        self._typed = typed

    def override(self, tree: Any, dotted: str, value: _Override) -> None:
        """Puts a value into the tree of the file; a number in the key is a place in a list."""
        expected, default, prefix = self._root, None, ""
        below: str | None = dotted
        while below is not None:
            key, below = _first_key(expected, below)
            expected, default = self._enter(expected, default, tree, key, prefix)
            prefix += f"{key}."
            place: Any = int(key) if isinstance(tree, list) else key
            if below is None:
                tree[place] = value
                break
            child = tree[place] if isinstance(tree, list) else tree.get(place)
            if not isinstance(child, dict | list):
                plain = None if dataclasses.is_dataclass(default) else _tree(default)
                empty: Any = [] if get_origin(_nested(expected)) is tuple else {}
                child = plain if isinstance(plain, dict | list) else empty
                tree[place] = child
            tree = child

    def _enter(
        self, expected: Any, default: Any, tree: Any, key: str, prefix: str
    ) -> tuple[Any, Any]:
        """The type and the default of what `key` names in `tree`, which is to be an `expected`."""
        kind = _nested(expected)
        if dataclasses.is_dataclass(kind):
            self._check_keys(kind, [key], prefix)
            return _fields(kind)[key], _default(kind, key, default)
        if get_origin(kind) is dict:
            return get_args(kind)[1], None
        if kind is None:
            raise self._error(f"{prefix[:-1]}: expected {_named(expected)}, not keys below it")
        count = len(tree) if isinstance(tree, list) else 0
        if not isinstance(tree, list) or not key.isdecimal() or int(key) > count:
            raise self._error(f"{prefix}{key}: expected a place from 0 to {count} in the list")
        if int(key) == count:
            tree.append(None)
        types = [type_ for type_ in get_args(kind) if type_ is not Ellipsis]
        return types[min(int(key), len(types) - 1)], None

    def build(self, kind: Any, tree: dict[str, Any], base: object, prefix: str) -> Any:
        """An instance of `kind`; what the tree lacks is that of `base`, or the default."""
        self._check_keys(kind, tree, prefix)
        values = {}
        for name, expected in _fields(kind).items():
            default = _default(kind, name, base)
            if name in tree:
                values[name] = self._value(expected, tree[name], default, prefix + name)
            elif default is dataclasses.MISSING:
                raise self._error(f"{prefix}{name} is missing: give {prefix}{name}=VALUE")
            else:
                values[name] = default
        try:
            return kind(**values)
        except ValueError as error:
            raise self._error(f"{prefix}{error}") from None

    def _error(self, message: str) -> ValueError:
        key = message.removeprefix(_UNKNOWN).partition(":")[0]
        typed = any(key == name or key.startswith(f"{name}.") for name in self._typed)
        return ValueError(f"{TYPED if typed else self._source}: {message}")

    def _check_keys(self, kind: Any, given: Iterable[Any], prefix: str) -> None:
        valid = _fields(kind)
        for key in map(str, given):
            if key in valid:
                continue
            places = {name.split(".")[-1]: name for name in reversed([*_keys(self._root)])}
            places |= {name: prefix + name for name in valid}
            nearest = [places[name] for name in _close(key, places)]
            rest = f"did you mean {nearest[0]}?" if nearest else f"expected {', '.join(valid)}"
            raise self._error(f"{_UNKNOWN}{prefix}{key}: {rest}")

    def _value(self, expected: Any, value: Any, default: Any, key: str) -> Any:
        """`value` as the type `expected`; `default` is the field's, if it has one."""
        members = _members(expected)
        if isinstance(value, _Override):
            is_text = str in members and not (value == "null" and NoneType in members)
            value = str(value) if is_text else yaml_text.parse(value, f"{TYPED}: {key}={value}")
        for member in members:
            if _fits(member, value):
                return self._as(member, value, default, key)
        raise self._error(f"{key}: expected {_named(expected)}, found {shown(value)}")

    def _as(self, member: Any, value: Any, default: Any, key: str) -> Any:
        origin, arguments = get_origin(member), get_args(member)
        if dataclasses.is_dataclass(member):
            return self.build(member, value, default, f"{key}.")
        if origin is dict:
            for name in value:
                if not isinstance(name, str):
                    found = shown(name)
                    raise self._error(f"{key}: expected text as keys, found {found}: quote it")
            return {
                name: self._value(arguments[1], item, None, f"{key}.{name}")
                for name, item in value.items()
            }
        if origin is tuple:
            types = arguments if arguments[-1] is not Ellipsis else arguments[:1] * len(value)
            if len(value) != len(types):
                raise self._error(f"{key}: expected {len(types)} items, found {len(value)}")
            return tuple(
                self._value(expected, item, None, f"{key}.{index}")
                for index, (expected, item) in enumerate(zip(types, value, strict=True))
            )
        return float(value) if member is float else value


def _fits(member: Any, value: Any) -> bool:
    """Whether a plain value may become `member`, whatever is inside it."""
    origin = get_origin(member)
    if member is float or member is int:
        numbers = (int, float) if member is float else (int,)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if dataclasses.is_dataclass(member):
        return isinstance(value, dict)
    if origin in (dict, tuple):
        return isinstance(value, dict if origin is dict else list)
    return isinstance(value, member)
