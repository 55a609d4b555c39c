"""The hashes by which keys, images and files are known."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import xxhash


def key_hash(key: str) -> int:
    """xxh3-64 of a member's key; its undecodable bytes, if any, as they stood in the tar."""
    return xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogateescape"))


def image_hash(data: bytes) -> int:
    """xxh3-64 of the image's encoded bytes."""
    return xxhash.xxh3_64_intdigest(data)


def sha256_hex(chunks: Iterable[bytes]) -> str:
    """Sha256 of the chunks put together, as 64 hex digits."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Sha256 of a file's bytes, as 64 hex digits; OSError where it can't be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
