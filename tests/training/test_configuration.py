"""Settings from YAML files and overrides: what is read, what is refused, and what is suggested."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from encodec_fast.training.configuration import (
    as_yaml,
    config_names,
    find_config,
    load_settings,
    read_task,
)


@dataclass(frozen=True)
class Source:
    path: str
    share: float = 1.0


@dataclass(frozen=True)
class Data:
    train: tuple[Source | str, ...] = ("a",)
    gain: tuple[float, float] = (-10.0, 6.0)
    kinds: dict[str, float] = field(default_factory=lambda: {"speech": 1.0, "music": 2.0})
    only: dict[str, tuple[str, ...]] = field(default_factory=lambda: {"a": ("x",)})
    cache: bool = True
    workers: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"workers: expected at least 0, found {self.workers}")


@dataclass(frozen=True)
class Everything:
    out: str
    rate: float = 1e-3
    steps: int = 10
    note: str | None = None
    sizes: tuple[int, ...] = (1, 2)
    data: Data = Data(workers=3)
    teacher: Source | None = None
    sources: tuple[Source, ...] = ()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.yaml"


FULL = """
task: codec
out: somewhere
rate: 1e-4
sizes: [4, 5, 6]
note: null
data:
  train: [{path: x, share: 2}, y]
  gain: [-3, .5]
  cache: false
teacher: {path: t}
"""


def test_a_file_fills_the_settings(file: Path) -> None:
    file.write_text(FULL)
    loaded = load_settings(Everything, file)
    assert loaded == Everything(
        out="somewhere",
        rate=1e-4,
        sizes=(4, 5, 6),
        data=Data(train=(Source("x", 2.0), "y"), gain=(-3.0, 0.5), cache=False, workers=3),
        teacher=Source("t"),
    )
    assert all(type(value) is float for value in (*loaded.data.gain, loaded.data.train[0].share))  # type: ignore[union-attr]
    assert read_task(file) == "codec"


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "+1e-3", "1.0e-3", ".1e-2", "0.001", "1.e-3"])
def test_numbers_as_people_write_them(file: Path, number: str) -> None:
    file.write_text(f"out: a\nrate: {number}\n")
    assert load_settings(Everything, file).rate == 1e-3
    file.write_text("out: a\n")
    assert load_settings(Everything, file, [f"rate={number}"]).rate == 1e-3


def test_overrides_come_after_the_file(file: Path) -> None:
    file.write_text(FULL)
    loaded = load_settings(
        Everything,
        file,
        [
            "out=2024",
            "note=on",
            "steps=7",
            "data.kinds.music=5",
            "data.workers=1",
            "data.train=[{path: q}]",
            "teacher.share=3",
        ],
    )
    assert (loaded.out, loaded.note, loaded.steps) == ("2024", "on", 7)
    assert loaded.data.kinds == {"speech": 1.0, "music": 5.0}
    assert loaded.data.train == (Source("q"),) and loaded.data.workers == 1
    assert loaded.data.cache is False and loaded.rate == 1e-4
    assert loaded.teacher == Source("t", 3.0)
    assert load_settings(Everything, file, ["teacher=null", "note=null"]).teacher is None


def test_an_override_can_give_what_the_file_lacks(file: Path) -> None:
    file.write_text("")
    assert load_settings(Everything, file, ["out=a=b: c"]) == Everything("a=b: c")
    assert load_settings(Everything, file, ["out=a", "teacher.path=p"]).teacher == Source("p")


def test_an_override_reaches_into_lists(file: Path) -> None:
    file.write_text(FULL)
    loaded = load_settings(Everything, file, ["data.train.0.path=z", "data.gain.1=3", "sizes.3=9"])
    assert loaded.data.train == (Source("z", 2.0), "y")
    assert loaded.data.gain == (-3.0, 3.0) and loaded.sizes == (4, 5, 6, 9)
    file.write_text("out: a")
    assert load_settings(Everything, file, ["data.gain.0=-1"]).data.gain == (-1.0, 6.0)
    assert load_settings(Everything, file, ["data.train.1.path=b"]).data.train == ("a", Source("b"))


def test_an_override_names_keys_with_dots(file: Path) -> None:
    file.write_text("out: a\ndata: {kinds: {'1.5': 1, speech: 2}}")
    loaded = load_settings(Everything, file, ["data.kinds.1.5=7", "data.kinds.12=3"])
    assert loaded.data.kinds == {"1.5": 7.0, "speech": 2.0, "12": 3.0}
    loaded = load_settings(Everything, file, ["data.only.a.1=y", "data.only.b.0=z"])
    assert loaded.data.only == {"a": ("x", "y"), "b": ("z",)}


def test_written_back_it_reads_the_same(file: Path) -> None:
    file.write_text(FULL)
    first = load_settings(Everything, file)
    file.write_text(as_yaml(first))
    assert load_settings(Everything, file) == first


@pytest.mark.parametrize(
    "text", ["1e5", ".5E-3", "1.e3", "1.5", "null", "on", "2024-01-01", "0x1f", "1:30", "a: b", "é"]
)
def test_strings_stay_strings(file: Path, text: str) -> None:
    first = Everything(text, note=text, data=Data(kinds={text: 1e-7}))
    file.write_text(as_yaml(first), encoding="utf-8")
    assert load_settings(Everything, file) == first


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("out: a\nstep: 3", [], r"run.yaml: unknown key step: did you mean steps\?"),
        ("out: a\ndata: {worker: 3}", [], r"unknown key data.worker: did you mean data.workers\?"),
        ("out: a\ncache: 3", [], r"unknown key cache: did you mean data.cache\?"),
        ("out: a", ["data.stepz=1"], r"^command line: unknown key data.stepz: .* steps\?"),
        ("out: a", ["qqqqqq=1"], r"unknown key qqqqqq: expected out, rate"),
        ("out: a\n7: 1", [], r"unknown key 7: expected out"),
        ("out: a", ["task=lm"], r"unknown key task"),
        ("out: a\ndata: {train: [{pat: x}]}", [], r".0.pat: did you mean data.train.0.path"),
        ("rate: 1", [], r"run.yaml: out is missing: give out=VALUE"),
        ("out: a\nteacher: {share: 1}", [], r"teacher.path is missing"),
        ("out: 3", [], r"run.yaml: out: expected text, found 3"),
        ("out: a\nrate: fast", [], r"rate: expected a number, found 'fast'"),
        ("out: a\nrate: true", [], r"rate: expected a number, found true"),
        ("out: a\nsteps: 1.5", [], r"steps: expected a whole number, found 1.5"),
        ("out: a\nsteps: yes", [], r"steps: expected a whole number, found true"),
        ("out: a\nnote: 1", [], r"note: expected text or null, found 1"),
        ("out: a\nsizes: [1, x]", [], r"sizes.1: expected a whole number, found 'x'"),
        ("out: a\nsizes: 3", [], r"sizes: expected a list, found 3"),
        ("out: a\ndata: {gain: [1]}", [], r"data.gain: expected 2 items, found 1"),
        ("out: a\ndata: {kinds: {speech: x}}", [], r"data.kinds.speech: expected a number"),
        ("out: a\ndata: {train: [3]}", [], r"train.0: expected keys with values or text, found 3"),
        ("out: a", ["data={worker: 3}"], r"^command line: unknown key data.worker: did you mean"),
        ("out: a\ndata: {worker: 3}", ["data.workers=3"], r"run.yaml: unknown key data.worker:"),
        ("out: a\ndata: {train: null}", [], r"train: expected a list, found null"),
        ("out: a\nsources: x", [], r"sources: .*a list of keys with values \(\[{path: VALUE}"),
        ("out: a\ndata: 3", [], r"data: expected keys with values, found 3"),
        ("out: a", ["data.workers=-1"], r"^command line: data.workers: expected at least 0, found"),
        ("out: a\ndata: {kinds: {1.5: 2}}", [], r"kinds: .* as keys, found 1.5: quote it"),
        ("out: a\ndata: {kinds: {on: 2}}", [], r"kinds: .* as keys, found true: quote it"),
        ("out: a", ["data.kinds=3"], r"^command line: data.kinds: expected keys with values, f"),
        ("out: a", ["data.kinds.1.5=x"], r"^command line: data.kinds.1.5: expected a number"),
        ("out: a", ["data.workers.=1"], r"workers: expected a whole number, not keys below it"),
        ("out: a", ["steps.more=1"], r"^command line: steps: .* whole number, not keys below it"),
        ("out: a", ["sizes.5=1"], r"sizes.5: expected a place from 0 to 2 in the list"),
        ("out: a", ["sizes.x=1"], r"sizes.x: expected a place from 0 to 2"),
        ("out: a\nsizes: 3\n", ["sizes.0.a=1"], r"sizes.0: .* whole number, not keys below it"),
        ("out: a", ["data.gain.2=1"], r"data.gain: expected 2 items, found 3"),
        ("out: a", ["steps"], r"^command line: expected key=value, found 'steps'"),
        ("out: a", ["=3"], r"^command line: expected key=value, found '=3'"),
        ("out: a", ["sizes=[1"], r"^command line: sizes=\[1: not valid YAML"),
        ("out: a\nout: b", [], r"not valid YAML: the key 'out' is given twice"),
        ("out: [a", [], r"run.yaml: not valid YAML"),
        ("out: 2024-13-40", [], r"run.yaml: not valid YAML"),
        ("- a", [], r"run.yaml: expected keys with values, found a list"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(
    file: Path, text: str, overrides: list[str], message: str
) -> None:
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_settings(Everything, file, overrides)


def test_other_bytes_are_no_configuration(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"run.yaml: expected text in UTF-8"):
        load_settings(Everything, file)


def test_configurations_are_found_by_name(tmp_path: Path) -> None:
    for name in config_names():
        assert find_config(name).stem == name
        assert read_task(name) in ("codec", "lm")
    assert "lm_nano_24khz" in config_names()
    with pytest.raises(FileNotFoundError, match=r"lm_nano_24kh: .* did you mean lm_nano_24khz\?"):
        find_config("lm_nano_24kh")
    with pytest.raises(FileNotFoundError, match=r"missing.yaml: there is no such"):
        find_config(tmp_path / "missing.yaml")


def test_the_task_is_codec_or_lm(file: Path) -> None:
    for text in ("task: other", "out: a"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"run.yaml: task: expected one of codec, lm, found"):
            read_task(file)
