"""Tokens as Parquet files: a row an item, its codes a list of uint16 per codebook (docs/tokens.md).

Dictionary encoding packs codes into the bits that they need; as Parquet's plain values they would
take four bytes each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from encodec_fast._native import CodeArray
from encodec_fast.batch import item_json
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec

# Of a row group, which a reader holds as a whole; an item of more has one of its own.
GROUP_CODES = 1 << 23
GROUP_ROWS = 4096
_GROUP_EXTRA = 1 << 26
_MAX_EXTRA = 1 << 29  # of an item
# What a file of others may ask a reader to hold.
_MAX_GROUP_ROWS = 1 << 20
_MAX_GROUP_BYTES = 1 << 30


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        {
            "key": pa.string(),
            "codes": pa.list_(pa.list_(pa.uint16())),
            "segment_frames": pa.list_(pa.uint32()),
            "scales": pa.list_(pa.float32()),
            "audio_length": pa.uint64(),
            "sample_rate": pa.uint32(),
            "model": pa.string(),
            "model_hash": pa.string(),
            "source": pa.string(),
            # Not a map, which Hugging Face datasets do not know.
            "extra": pa.list_(pa.struct({"name": pa.string(), "data": pa.binary()})),
        },
        metadata={"encodec_fast.tokens": str(item_json.FORMAT)},
    )


def write(items: Iterable[Tokens], stream: IO[bytes], codec: Codec) -> None:
    pq = _parquet()
    rows: list[Tokens] = []
    codes = extra = 0
    with pq.ParquetWriter(stream, _schema(), compression="zstd") as writer:
        for tokens in items:
            more = _extra_size(tokens)
            full = codes + tokens.codes.size > GROUP_CODES or extra + more > _GROUP_EXTRA
            if rows and (full or len(rows) == GROUP_ROWS):
                writer.write_table(_table(rows), row_group_size=GROUP_ROWS)
                rows, codes, extra = [], 0, 0
            rows.append(tokens)
            codes += tokens.codes.size
            extra += more
        if rows:
            writer.write_table(_table(rows), row_group_size=GROUP_ROWS)


def check(tokens: Tokens, count: int) -> None:
    """Raises ValueError for an item that no file can hold."""
    item_json.describe(tokens)
    _extra_size(tokens)


def _extra_size(tokens: Tokens) -> int:
    size = sum(len(name.encode()) + len(data) for name, data in tokens.extra.items())
    if size > _MAX_EXTRA:  # or no reader would take the row group
        raise ValueError(
            f"item {tokens.key!r}: expected extras of at most {_MAX_EXTRA} bytes, found {size}"
        )
    return size


def _table(rows: list[Tokens]) -> Any:
    import pyarrow as pa

    about = [item_json.describe(tokens) for tokens in rows]
    schema = _schema()
    arrays = {
        name: pa.array([row[name] for row in about], schema.field(name).type)
        for name in schema.names
        if name not in ("codes", "extra")
    }
    arrays["codes"] = _code_lists([tokens.codes for tokens in rows])
    extras = [
        [{"name": name, "data": tokens.extra[name]} for name in sorted(tokens.extra)]
        for tokens in rows
    ]
    arrays["extra"] = pa.array(extras, schema.field("extra").type)
    return pa.table([arrays[name] for name in schema.names], schema=schema)


def _code_lists(codes: list[CodeArray]) -> Any:
    import pyarrow as pa

    frames = [array.shape[1] for array in codes for _ in range(array.shape[0])]
    values = pa.array(np.concatenate([array.ravel() for array in codes]))
    books = pa.ListArray.from_arrays(_offsets(frames), values)
    return pa.ListArray.from_arrays(_offsets([array.shape[0] for array in codes]), books)


def _offsets(lengths: list[int]) -> npt.NDArray[np.int32]:
    # Within int32: an item has at most MAX_CODES codes.
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def read(stream: IO[bytes], codec: Codec | None) -> Iterator[Tokens]:
    pq = _parquet()
    import pyarrow as pa

    try:
        file = pq.ParquetFile(stream, pre_buffer=False)
        schema = _schema()
        if not file.schema_arrow.equals(schema):
            raise ValueError("expected the columns of a file of tokens (docs/tokens.md)")
        for number in range(file.num_row_groups):
            _check_size(file.metadata.row_group(number))
            yield from _items(file.read_row_group(number, use_threads=False))
    except (pa.ArrowException, OSError, OverflowError) as error:
        raise ValueError(f"damaged Parquet ({error})") from None


def _check_size(group: Any) -> None:
    """Refuses a row group that no writer of tokens makes, before it is read."""
    values = max(group.column(i).num_values for i in range(group.num_columns))
    if group.num_rows > _MAX_GROUP_ROWS or group.total_byte_size > _MAX_GROUP_BYTES:
        raise ValueError(
            f"row group: expected at most {_MAX_GROUP_ROWS} rows and {_MAX_GROUP_BYTES} bytes, "
            f"found {group.num_rows} and {group.total_byte_size}"
        )
    if values > item_json.MAX_CODES:
        raise ValueError(f"row group: expected at most {item_json.MAX_CODES} codes, found {values}")


def _items(table: Any) -> Iterator[Tokens]:
    table = table.combine_chunks()
    columns = {
        name: table[name].to_pylist()
        for name in table.column_names
        if name not in ("codes", "extra")
    }
    lists = table["codes"].combine_chunks()
    books = lists.values
    if lists.null_count or books.null_count or books.values.null_count:
        raise ValueError("codes: expected no nulls")
    flat = books.values.to_numpy()
    rows, parts = lists.offsets.to_numpy(), books.offsets.to_numpy()
    extras = table["extra"].to_pylist()
    for row in range(table.num_rows):
        bounds = parts[rows[row] : rows[row + 1] + 1]
        about = {name: values[row] for name, values in columns.items()}
        about["format"] = item_json.FORMAT
        extra = {member["name"]: member["data"] for member in extras[row]}
        about["extra"] = [member["name"] for member in extras[row]]
        yield item_json.restore(about, _array(flat, bounds), extra)


def _array(flat: CodeArray, bounds: npt.NDArray[np.int32]) -> CodeArray:
    if len(bounds) < 2 or len(set(np.diff(bounds).tolist())) != 1:
        raise ValueError("codes: expected lists of one length for the codebooks of an item")
    return flat[bounds[0] : bounds[-1]].reshape(len(bounds) - 1, -1).copy()


def _parquet() -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError(
            f"parquet: it needs `pip install 'encodec-fast[tokenize]'` ({error})"
        ) from None
    return pq
