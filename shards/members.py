"""The members of a tar: files grouped by key as WebDataset groups them, in order, none left out."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from softlabel.shards.tars import Entry, TarStream, entries

LARGEST_IMAGE_BYTES = 256 << 20
"""A larger image file is not read into memory; its row says `too large`."""

LARGEST_SIDECAR_BYTES = 16 << 20
NO_TARGET = -1

_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")


@dataclass(frozen=True, slots=True)
class Member:
    """One sample: a key with its files.

    Without an image `image` is None and `size` is 0; an image over `LARGEST_IMAGE_BYTES` has its
    size and no bytes.
    """

    ordinal: int
    key: str
    image: bytes | None
    offset: int
    size: int
    target: int


def members(stream: TarStream, *, image_ext: Sequence[str]) -> Iterator[Member]:
    """The members of a tar in order; the image is the first file with one of the extensions.

    A key runs to the first dot of the file's base name, and adjacent files with one key are one
    member: WebDataset's rules. Where WebDataset refuses a file name that comes twice in a row, a
    second member of that key begins. Raises `TarError` for a damaged tar.
    """
    draft: _Draft | None = None
    ordinal = 0
    for entry in entries(stream):
        split = split_name(entry.name)
        if split is None:
            continue
        key, extension = split
        if draft is None or key != draft.key or extension in draft.extensions:
            if draft is not None:
                yield draft.member(ordinal)
                ordinal += 1
            draft = _Draft(key)
        draft.add(extension, entry, stream, image_ext)
    if draft is not None:
        yield draft.member(ordinal)


def count_members(stream: TarStream) -> int:
    """How many members a tar has, from its headers alone."""
    return sum(1 for _ in members(stream, image_ext=()))


def split_name(name: str) -> tuple[str, str] | None:
    """Key and lower-case extension; None for a file that WebDataset passes over."""
    match = _NAME.match(name)
    if match is None or _META.match(name):
        return None
    return match.group(1), match.group(2).lower()


class _Draft:
    """A member whose files are still coming."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.extensions: set[str] = set()
        self._image: bytes | None = None
        self._place = (0, 0)
        self._targets: dict[str, int] = {}

    def add(
        self, extension: str, entry: Entry, stream: TarStream, image_ext: Sequence[str]
    ) -> None:
        self.extensions.add(extension)
        if extension in image_ext and self._place == (0, 0):
            self._place = (entry.offset, entry.size)
            if entry.size <= LARGEST_IMAGE_BYTES:
                self._image = stream.read(entry.size)
        elif extension in {"cls", "json"} and image_ext and entry.size <= LARGEST_SIDECAR_BYTES:
            self._targets[extension] = _target(extension, stream.read(entry.size))

    def member(self, ordinal: int) -> Member:
        target = self._targets.get("cls", NO_TARGET)
        if target == NO_TARGET:
            target = self._targets.get("json", NO_TARGET)
        return Member(ordinal, self.key, self._image, *self._place, target)


def _target(extension: str, data: bytes) -> int:
    try:
        value = int(data) if extension == "cls" else json.loads(data)["label"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return NO_TARGET
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and 0 <= value < 2**31 else NO_TARGET
