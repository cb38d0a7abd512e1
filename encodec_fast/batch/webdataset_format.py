"""Tokens as WebDataset tars: KEY.codes.npy, KEY.codes.json and the extras KEY.NAME, in this order.

KEY and NAME are percent-encoded; WebDataset ends a key at the first dot of the file's name, so
dots of keys are, too. The description, which has the true key, is not called KEY.json because that
is what samples of others carry.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, unquote

import numpy as np

from encodec_fast.batch import item_json
from encodec_fast.batch.arrays import bytes_left, read_array, read_exactly, write_array
from encodec_fast.batch.names import encoded_key
from encodec_fast.batch.tokens import Tokens
from encodec_fast.codec import Codec

if TYPE_CHECKING:
    from tarfile import TarFile, TarInfo

_CODES, _ABOUT = "codes.npy", "codes.json"
_BLOCK = 512


def write(items: Iterable[Tokens], stream: IO[bytes], codec: Codec) -> None:
    import tarfile  # only here: start-up time

    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for tokens in items:
            about = item_json.describe(tokens)
            codes = io.BytesIO()
            write_array(codes, tokens.codes)
            members = {_CODES: codes.getvalue(), _ABOUT: item_json.dump(about)}
            for extra in about["extra"]:
                members[_extra_suffix(extra)] = tokens.extra[extra]
            for suffix, data in members.items():
                # A new TarInfo belongs to nobody and was changed in 1970.
                member = tarfile.TarInfo(f"{encoded_key(tokens.key)}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def check(tokens: Tokens, count: int) -> None:
    """Raises ValueError for an item that no file can hold."""
    item_json.dump(item_json.describe(tokens))


def _extra_suffix(extra: str) -> str:
    suffix = quote(extra, safe="")
    if suffix in (_CODES, _ABOUT):  # of a sample that was tokenised before
        suffix = f"%{ord(suffix[0]):02X}{suffix[1:]}"
    return suffix


def read(stream: IO[bytes], codec: Codec | None) -> Iterator[Tokens]:
    import tarfile

    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            yield from _samples(archive, stream)
    except tarfile.TarError as error:
        raise ValueError(f"damaged tar ({error})") from None


def _samples(archive: TarFile, stream: IO[bytes]) -> Iterator[Tokens]:
    name, members = "", dict[str, bytes]()
    size = bytes_left(stream) + stream.tell()
    while (member := archive.next()) is not None:
        # Or they fill the memory.
        archive.members.clear()  # type: ignore[attr-defined]  # left out of the library's stubs
        if member.isdir():
            continue
        key, suffix = _split(member.name)
        if key != name and members:
            yield _sample(name, members)
            members = {}
        name = key
        if suffix in members:
            raise ValueError(f"member {member.name[:100]!r}: expected it once, found it twice")
        members[suffix] = _content(member, stream, size)
    if members:
        yield _sample(name, members)
    # Without the blocks of zeros at the end, members may be missing.
    stream.seek(archive.offset)
    if stream.read(_BLOCK) != bytes(_BLOCK):
        raise ValueError("truncated (the archive has no end)")


def _split(name: str) -> tuple[str, str]:
    """Key and suffix as WebDataset has them."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return folder + slash + stem, suffix


def _content(member: TarInfo, stream: IO[bytes], size: int) -> bytes:
    name = f"member {member.name[:100]!r}"
    # A sparse member may be of any size without taking room in the file.
    if not member.isreg() or member.issparse():
        raise ValueError(f"{name}: expected a plain file")
    if member.size > size - member.offset_data:
        raise ValueError(f"{name}: truncated")
    stream.seek(member.offset_data)
    return bytes(read_exactly(stream, member.size))


def _sample(name: str, members: dict[str, bytes]) -> Tokens:
    try:
        if _CODES not in members or _ABOUT not in members:
            raise ValueError(f"expected {_CODES} and {_ABOUT}, found {', '.join(members)[:200]}")
        data = members.pop(_CODES)
        stream = io.BytesIO(data)
        codes = read_array(stream, np.uint16, len(data))
        about = item_json.parse(members.pop(_ABOUT))
        return item_json.restore(about, codes, {unquote(k): v for k, v in members.items()})
    except ValueError as error:
        raise ValueError(f"sample {name[:100]!r}: {error}") from None
