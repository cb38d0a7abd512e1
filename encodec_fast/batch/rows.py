"""Audio in the rows of tables: Hugging Face data sets, in memory or saved, and parquet files.

The audio column holds structs of `bytes` and `path`, or only one of them. Rows are read as they are
stored: `datasets` never decodes, which would need torch.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from encodec_fast.batch.filesystem import beside, exists, is_remote, open_binary
from encodec_fast.batch.items import FileLocation, Item, key_of, shown


@dataclass(frozen=True)
class ParquetRow:
    """A row of a row group of a parquet file."""

    path: str
    column: str
    group: int
    row: int

    def open(self) -> contextlib.AbstractContextManager[Path | IO[bytes]]:
        with _READING:
            rows = _row_group(self.path, self.column, self.group)
        return _opened(rows[self.row].as_py(), self.path)


@dataclass(frozen=True)
class ArrowRow:
    """A row of a file that `save_to_disk` wrote."""

    path: str
    column: str
    row: int

    def open(self) -> contextlib.AbstractContextManager[Path | IO[bytes]]:
        return _opened(_arrow_table(self.path).column(self.column)[self.row].as_py(), self.path)


@dataclass(frozen=True)
class DatasetRow:
    """A row of a `datasets.Dataset` in Arrow format."""

    dataset: Any = field(repr=False, compare=False)
    column: str
    row: int

    def open(self) -> contextlib.AbstractContextManager[Path | IO[bytes]]:
        return _opened(self.dataset[self.row].column(self.column)[0].as_py(), "")


def list_dataset(dataset: Any, column: str, name: str | None = None) -> Iterator[Item]:
    """The rows of a `datasets.Dataset`, or of all in a DatasetDict, by number; keys begin with the
    split (`name`: its name in the DatasetDict) where there is one. Raises ValueError for what is
    neither, or lacks the column."""
    if isinstance(dataset, dict):
        for split, part in dataset.items():
            yield from list_dataset(part, column, str(split))
        return
    if not hasattr(dataset, "with_format") or not hasattr(dataset, "num_rows"):
        raise ValueError(
            "sources: expected paths or a datasets.Dataset (a streamed one has no rows to count: "
            f"save it as parquet first), found {type(dataset).__name__}"
        )
    split = str(dataset.split or "") if name is None else name
    _check_column(dataset.column_names, column, "sources: the data set")
    rows = dataset.with_format("arrow")
    for row in range(dataset.num_rows):
        place = f"{split or 'dataset'}: row {row}"
        yield Item(key_of(split, f"{row:08d}"), DatasetRow(rows, column, row), place)


def is_saved_dataset(folder: str) -> bool:
    """Whether `save_to_disk` wrote a folder."""
    return exists(f"{folder}/dataset_dict.json") or exists(f"{folder}/dataset_info.json")


def list_saved_dataset(folder: str, prefix: str, column: str) -> Iterator[Item]:
    """The rows of a folder that `save_to_disk` wrote, of all splits. Raises ValueError for one that
    is damaged, lacks the column or is on another machine."""
    if is_remote(folder):
        raise ValueError(f"{folder}: saved data sets are read from local folders; use parquet")
    try:
        if exists(f"{folder}/dataset_dict.json"):
            splits = json.loads(Path(folder, "dataset_dict.json").read_text("utf-8"))["splits"]
            for split in splits:
                name = f"{prefix}/{split}" if prefix else split
                yield from list_saved_dataset(f"{folder}/{split}", name, column)
            return
        state = json.loads(Path(folder, "state.json").read_text("utf-8"))
        names = [str(file["filename"]) for file in state["_data_files"]]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}: not a data set of save_to_disk: {error!r}") from None
    number = 0
    for name in names:
        path = str(Path(folder, name))
        table = _arrow_table(path)
        _check_column(table.column_names, column, path)
        for row, stated in enumerate(_stated_paths(table.column(column))):
            place = shown(f"{path}: row {row}{stated}")
            yield Item(key_of(prefix, f"{number:08d}"), ArrowRow(path, column, row), place)
            number += 1


def list_parquet(path: str, prefix: str, column: str) -> Iterator[Item]:
    """The rows of a parquet file. Raises ValueError for what is none or lacks the column."""
    with open_binary(path) as stream:
        file = _parquet_file(stream, path)
        schema = file.schema_arrow
        _check_column(schema.names, column, path)
        leaves = [file.schema.column(n).path for n in range(len(file.schema))]
        stated = next((leaf for leaf in (f"{column}.path",) if leaf in leaves), None)
        number = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            names = [""] * rows
            if stated is not None:
                names = _stated_paths(file.read_row_group(group, columns=[stated]).column(column))
            for row in range(rows):
                place = shown(f"{path}: row {number}{names[row]}")
                location = ParquetRow(path, column, group, row)
                yield Item(key_of(prefix, f"{number:08d}"), location, place)
                number += 1


def _stated_paths(column: Any) -> list[str]:
    """What each row says its audio's file was called, in brackets, to find it again by."""
    import pyarrow as pa

    if not pa.types.is_struct(column.type):
        return [""] * len(column)
    place = column.type.get_field_index("path")
    if place < 0:
        return [""] * len(column)
    return [
        f" ({value})" if value else ""
        for chunk in column.chunks
        for value in chunk.field(place).to_pylist()
    ]


@contextlib.contextmanager
def _opened(value: Any, path: str) -> Iterator[Path | IO[bytes]]:
    """What a cell of an audio column holds, in the table at `path`."""
    data, name = value, value
    if isinstance(value, dict):
        data, name = value.get("bytes"), value.get("path")
    if isinstance(data, bytes):
        yield io.BytesIO(data)
    elif isinstance(name, str) and name:
        with FileLocation(beside(path, name) if path else name).open() as source:
            yield source
    else:
        found = "nothing" if value is None else type(value).__name__
        raise ValueError(f"expected audio (bytes or a path) in the row, found {found}")


def _check_column(names: list[str], column: str, place: str) -> None:
    if column not in names:
        raise ValueError(
            f"{place}: no column {column!r} of audio (--audio-column), found {', '.join(names)}"
        )


def _parquet_file(stream: IO[bytes], path: str) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise _needs_pyarrow(path, error) from None
    try:
        return pq.ParquetFile(stream)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: expected a parquet file: {error}") from None


# A row group is decoded by one thread while the others wait for it, or each would hold its own.
_READING = threading.Lock()


# Items are coded about in the order of rows: the group that is read, and the one before.
@functools.lru_cache(maxsize=2)
def _row_group(path: str, column: str, group: int) -> Any:
    with open_binary(path) as stream:
        table = _parquet_file(stream, path).read_row_group(group, columns=[column])
    return table.column(column)


@functools.lru_cache(maxsize=256)  # mapped, not in memory
def _arrow_table(path: str) -> Any:
    try:
        import pyarrow as pa
    except ImportError as error:
        raise _needs_pyarrow(path, error) from None
    try:
        return pa.ipc.open_stream(pa.memory_map(path)).read_all()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: expected an Arrow stream: {error}") from None


def _needs_pyarrow(path: str, error: ImportError) -> ValueError:
    return ValueError(
        f"{path}: reading tables needs `pip install 'encodec-fast[tokenize]'` ({error})"
    )
