"""Where images come from, as a name: by their tar's name, their key, or a field of their json."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.errors import IdentityError, UsageError
from softlabel.shards.members import LARGEST_SIDECAR_BYTES, split_name
from softlabel.shards.specs import open_tar, redacted
from softlabel.shards.tars import TarStream, entries

MOST_SOURCES = 4096
"""More than these are no sources of a collection, but a pattern that names single images."""

NAMELESS = "(none)"
"""The source of an image whose key does not match, or whose json lacks the field."""

_NUMBER = re.compile(r"([-_.]\d+([-_.]of[-_.]\d+)?|(?<!\d)0\d*)$")
"""A tar's number: after a separator, `-00003-of-01024` included, or zero-padded; else its name may
end in a digit that is no number, as `cifar10` does."""
_FORMS = "wanted name, tar, path:REGEX, key:REGEX or json:FIELD"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceBy:
    """What makes two images of one source; `parse_source_by` reads it from a flag."""

    kind: Literal["name", "tar", "path", "key", "json"]
    pattern: str = ""
    """The regular expression of path and key, the field of json."""

    @property
    def needs_tars(self) -> bool:
        """Whether the tars themselves must be read: a store knows neither keys nor json."""
        return self.kind in ("key", "json")

    def __str__(self) -> str:
        return f"{self.kind}:{self.pattern}" if self.pattern else self.kind


@dataclass(frozen=True, kw_only=True, slots=True)
class TarSources:
    """The sources of one tar's members."""

    names: tuple[str, ...]
    """Each once, in the order of their first member."""
    code: NDArray[np.int32]
    """[members] place in `names`."""


def parse_source_by(text: str) -> SourceBy:
    """Read a --source-by.

    name: the tar's file name without its number, `letters-0003.tar` is of `letters`. tar: each tar
    is a source. path:REGEX and key:REGEX: the first group of the expression, or the whole match
    where it has none, searched in the tar's path or in the member's key. json:FIELD: that field of
    the member's .json; dots descend into objects.

    Raises:
        UsageError: none of these, an empty pattern, or one that is no regular expression.
    """
    kind, colon, pattern = text.partition(":")
    if kind in ("name", "tar") and not colon:
        return SourceBy(kind=kind)  # type: ignore[arg-type]
    if kind not in ("path", "key", "json") or not colon:
        raise UsageError(f"--source-by {text!r}: {_FORMS}")
    if not pattern:
        raise UsageError(f"--source-by {text!r}: the pattern is empty; {_FORMS}")
    if kind != "json":
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(
                f"--source-by {text!r}: not a regular expression: {error}; {_FORMS}"
            ) from None
    return SourceBy(kind=kind, pattern=pattern)  # type: ignore[arg-type]


def source_of_name(by: SourceBy, tar: str) -> str | None:
    """The source of a whole tar by its name or path; None where the pattern does not match."""
    name = tar.rpartition("/")[2]
    if by.kind == "name":
        stem = name.removesuffix(".tar")
        return _printable(_NUMBER.sub("", stem) or stem)
    if by.kind == "tar":
        return _printable(name)
    assert by.kind == "path"
    return _matched(by.pattern, tar)


def refuse_unmatched(by: SourceBy, tars: Sequence[str]) -> None:
    """UsageError if a path pattern matches none of a store's tars: it is a slip, not a source."""
    if by.kind == "path" and not any(source_of_name(by, tar) is not None for tar in tars):
        raise UsageError(
            f"--source-by {by}: matches none of the {len(tars)} tars; the first is "
            f"{redacted(tars[0]) if tars else 'none'}"
        )


def tar_sources(by: SourceBy, tar: str, *, url: str | None, num_members: int) -> TarSources:
    """The source of each member of a tar.

    Args:
        by: what makes a source.
        tar: the tar's name as the store has it.
        url: where it lies now; read only if `by.needs_tars`.
        num_members: as its commit says.

    Raises:
        UsageError: the tar must be read and nobody said where it is.
        IdentityError: it has another number of members.
        TarError: it is damaged or can't be read.
    """
    if not by.needs_tars:
        code = np.zeros(num_members, np.int32)
        return TarSources(names=(source_of_name(by, tar) or NAMELESS,), code=code)
    if url is None:
        raise UsageError(f"--source-by {by}: is in the tars only; give them with --shards")
    found = list(_member_sources(by, url))
    if len(found) != num_members:
        raise IdentityError(
            f"{redacted(url)}: has {len(found):,} members, the store {num_members:,}: it is not "
            "the tar that was labelled"
        )
    numbers = {name: number for number, name in enumerate(dict.fromkeys(found))}
    return TarSources(
        names=tuple(numbers), code=np.array([numbers[name] for name in found], np.int32)
    )


def _member_sources(by: SourceBy, url: str) -> Iterator[str]:
    """One a member, grouped as `members.members` groups them."""
    with open_tar(url) as (file, size):
        stream = TarStream(file, name=redacted(url), size=size, hashed=False)
        key: str | None = None
        extensions: set[str] = set()
        source = NAMELESS
        for entry in entries(stream):
            split = split_name(entry.name)
            if split is None:
                continue
            if split[0] != key or split[1] in extensions:
                if key is not None:
                    yield source
                key, extensions = split[0], set()
                source = (_matched(by.pattern, key) if by.kind == "key" else None) or NAMELESS
            extensions.add(split[1])
            if by.kind == "json" and split[1] == "json" and entry.size <= LARGEST_SIDECAR_BYTES:
                source = _field(stream.read(entry.size), by.pattern)
        if key is not None:
            yield source


def _matched(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    if found is None:
        return None
    return _printable(found.group(1 if found.re.groups else 0) or "") or None


def _field(data: bytes, path: str) -> str:
    try:
        value = json.loads(data)
        for part in path.split("."):
            value = value[part]
    except (ValueError, KeyError, TypeError, RecursionError):
        return NAMELESS
    if isinstance(value, str | int | float | bool):
        return _printable(str(value)) or NAMELESS
    return NAMELESS


def _printable(text: str) -> str:
    """Names come from files: nothing that a terminal obeys, nothing that is no Unicode."""
    return "".join(c if c.isprintable() else "?" for c in text)
