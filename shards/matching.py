"""Which of a store's tars is this one? By the shortest path suffix that only one has."""

from collections.abc import Sequence

from softlabel.shards.errors import IdentityError
from softlabel.shards.specs import redacted


def match_tars(stored: Sequence[str], given: Sequence[str]) -> list[int]:
    """The store's ordinal of each given tar, wherever the tars lie now.

    Raises:
        IdentityError: the store lacks a tar, can't tell which of several is meant, or two of the
            given tars are the same one.
    """
    by_name: dict[str, list[int]] = {}
    for ordinal, name in enumerate(stored):
        by_name.setdefault(_parts(name)[-1], []).append(ordinal)
    ordinals = [_match(tar, stored, by_name) for tar in given]
    seen: dict[int, str] = {}
    for tar, ordinal in zip(given, ordinals, strict=True):
        if ordinal in seen:
            raise IdentityError(
                f"{redacted(tar)} and {redacted(seen[ordinal])} are both the store's tar "
                f"{stored[ordinal]}; give each tar once"
            )
        seen[ordinal] = tar
    return ordinals


def _match(tar: str, stored: Sequence[str], by_name: dict[str, list[int]]) -> int:
    parts = _parts(redacted(tar))
    candidates = by_name.get(parts[-1], [])
    if not candidates:
        raise IdentityError(
            f"{redacted(tar)}: the store has no labels for it; it has {len(stored)} tars, "
            f"the first is {stored[0] if stored else 'none'}"
        )
    length = 1
    while len(candidates) > 1 and length < len(parts):
        length += 1
        longer = [c for c in candidates if _parts(stored[c])[-length:] == parts[-length:]]
        if not longer:
            break
        candidates = longer
    if len(candidates) > 1:
        raise IdentityError(
            f"{redacted(tar)}: could be any of {len(candidates)} tars of the store, such as "
            f"{stored[candidates[0]]} and {stored[candidates[1]]}; give a longer path"
        )
    return candidates[0]


def _parts(name: str) -> list[str]:
    return name.split("/")
