"""JSON files that carry their own checksum.

A sealed file is canonical JSON (sorted keys, no spaces, ASCII, one newline) of an object whose
field `checksum` is the sha256 of the same object without that field. Equal content is equal bytes.
"""

import json
from collections.abc import Mapping
from typing import Any

from softlabel.shards.errors import StoreError
from softlabel.shards.hashing import sha256_hex

FIELD = "checksum"


def canonical(content: Mapping[str, Any]) -> bytes:
    """The one way to write `content` as JSON; ValueError for NaN and infinities."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def checksum(content: Mapping[str, Any]) -> str:
    """Sha256 of the canonical JSON of `content`."""
    return sha256_hex([canonical(content)])


def seal(content: Mapping[str, Any]) -> bytes:
    """The bytes of a sealed file."""
    return canonical({**content, FIELD: checksum(content)}) + b"\n"


def unseal(data: bytes, *, name: str) -> dict[str, Any]:
    """The content of a sealed file called `name`; StoreError if a bit of it has changed."""
    try:
        content = json.loads(data)
        stated = content.pop(FIELD)
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"{name}: wanted sealed JSON, found something else ({error})") from None
    if seal(content) != data:
        raise StoreError(f"{name}: checksum {stated} does not match the content: file damaged")
    return dict(content)
