"""Keys of recordings as names of files and of members of archives."""

from __future__ import annotations

import hashlib
from urllib.parse import quote

# Longer ones are no names of recordings, and shards and readers of hostile files need some bound.
MAX_KEY_BYTES = 1024
_LONGEST_NAME = 255  # bytes of a part of a path, on every usual file system
_LONGEST_PATH = 1024  # of the usual 4096, which the output folder's own path has to share


def encoded_key(key: str) -> str:
    """A relative path for a key, which `urllib.parse.unquote` turns back into the key.

    All but ASCII letters, digits, "-", "_" and "~" is percent-encoded: dots too, since WebDataset
    ends a key at the first one, and so that no part is "." or "..". Slashes stay where they lie
    between parts that are not empty. Raises ValueError for an empty key, one of more than
    MAX_KEY_BYTES bytes, and one that UTF-8 cannot hold.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(f"key: expected valid Unicode, found {key!r}") from None
    if not 1 <= size <= MAX_KEY_BYTES:
        raise ValueError(f"key: expected 1..{MAX_KEY_BYTES} bytes of UTF-8, found {size}")
    return quote(key, safe="/" if all(key.split("/")) else "").replace(".", "%2E")


def file_name(key: str, suffix: str) -> str:
    """The path, below the output folder, of the file of an item. Parts that are longer than file
    systems take end in a hash instead, and a path that is becomes one such part. Raises ValueError
    as `encoded_key`."""
    path = encoded_key(key)
    if len(path) + len(suffix) > _LONGEST_PATH:
        path = path.replace("/", "%2F")
    *folders, name = path.split("/")
    return "/".join([*(_short(folder, "") for folder in folders), _short(name, suffix)])


def _short(part: str, suffix: str) -> str:
    if len(part) + len(suffix) <= _LONGEST_NAME:
        return part + suffix
    # No key has a dot in its encoded form, so none has this name as its own.
    return f"{part[:180]}.{hashlib.sha256(part.encode()).hexdigest()[:32]}{suffix}"


def shard_name(job: str, shard: int, suffix: str) -> str:
    """The file of a shard. job: what Settings.job says."""
    return f"tokens{job}-{shard:05d}{suffix}"
