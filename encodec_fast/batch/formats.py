"""The formats of tokens: how a file of each is written and read (docs/tokens.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from encodec_fast.batch import (
    ecdc_format,
    npy_format,
    parquet_format,
    safetensors_format,
    webdataset_format,
)
from encodec_fast.batch.coding import Failure
from encodec_fast.batch.filesystem import open_binary
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec

Outcome = Tokens | Failure


@dataclass(frozen=True)
class Format:
    """A format of tokens.

    suffix: of its files; read_stream, write_stream: what `read` and `write` do to a binary stream
    that can be sought; check: of formats whose files hold many items, raises ValueError for an item
    that a file of so many, all of which pass, could not hold; pack: what is better done to several
    items at once, on the thread that coded them, before they are written one by one.
    """

    name: str
    suffix: str
    write_stream: Callable[[Iterable[Tokens], IO[bytes], Codec], None]
    read_stream: Callable[[IO[bytes], Codec | None], Iterator[Tokens]]
    check: Callable[[Tokens, int], None] | None = None
    pack: Callable[[Iterable[Outcome], Codec, str], Iterator[Outcome]] | None = None

    @property
    def per_item(self) -> bool:
        """Whether a file holds one item."""
        return self.check is None

    def packed(self, outcomes: Iterable[Outcome], codec: Codec, entropy: str) -> Iterable[Outcome]:
        """The outcomes as `write` takes them soonest; entropy: the mode of .ecdc files."""
        return outcomes if self.pack is None else self.pack(outcomes, codec, entropy)

    def write(self, tokens: Iterable[Tokens], target: Path, codec: Codec) -> None:
        """Writes a file, the same bytes for the same tokens and versions of libraries.

        tokens: all of the file's, taken one by one; one where `per_item`. codec: the model that
        coded them. What `target` had is lost, and it is not whole until this returns. Raises
        ValueError for tokens that the format cannot hold and OSError for a file that cannot be
        written.
        """
        with target.open("wb") as stream:
            self.write_stream(tokens, stream, codec)

    def read(self, path: str | Path, codec: Codec | None = None) -> Iterator[Tokens]:
        """The items of a file, one (Parquet: a row group) in memory at a time.

        path: or a URL for fsspec; codec: the model of .ecdc files, if it is not installed. Raises
        ValueError naming a file that is damaged or something else, OSError for one that cannot be
        read.
        """
        with open_binary(str(path)) as stream:
            try:
                yield from self.read_stream(stream, codec)
            except (ValueError, EOFError) as error:
                raise ValueError(f"{path}: {error}") from None


FORMATS = {
    format.name: format
    for format in (
        Format("npy", ".npy", npy_format.write, npy_format.read),
        Format(
            "safetensors",
            ".safetensors",
            safetensors_format.write,
            safetensors_format.read,
            safetensors_format.check,
        ),
        Format(
            "parquet",
            ".parquet",
            parquet_format.write,
            parquet_format.read,
            parquet_format.check,
        ),
        Format(
            "webdataset",
            ".tar",
            webdataset_format.write,
            webdataset_format.read,
            webdataset_format.check,
        ),
        Format("ecdc", ".ecdc", ecdc_format.write, ecdc_format.read, pack=ecdc_format.packed),
    )
}


def format_of(path: str | Path) -> Format | None:
    """The format that a file's suffix names, or None."""
    suffix = Path(path).suffix.lower()
    return next((format for format in FORMATS.values() if format.suffix == suffix), None)
