"""Keys of recordings as names of files and of members of archives."""

from __future__ import annotations

from urllib.parse import quote

# Longer ones are no names of recordings, and a reader of hostile files needs some bound.
MAX_KEY_BYTES = 4096


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
