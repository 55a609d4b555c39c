"""The record that one tar is completely labelled."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from softlabel.shards.errors import StoreError
from softlabel.shards.sealed import seal, unseal


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """Written after everything it speaks of is on disk; that is immutable while it stands."""

    store_id: str
    tar: int
    """The tar's ordinal in the store."""
    generation: int
    """1, and one more each time the tar is labelled anew."""
    members: int
    status_counts: Mapping[str, int]
    """Rows by status number, for the statuses that occur."""
    tar_size: int
    tar_sha256: str
    files: Mapping[str, str]
    """Sha256 of the tar's shard file of each array."""

    def seal(self) -> bytes:
        """The bytes of the commit file."""
        return seal(asdict(self))

    @classmethod
    def unseal(cls, data: bytes, *, name: str, store_id: str, tar: int) -> "Commit":
        """Read a commit file; StoreError if it is damaged or speaks of another store or tar."""
        content: dict[str, Any] = unseal(data, name=name)
        wanted = {field.name for field in fields(cls)}
        if set(content) != wanted:
            raise StoreError(f"{name}: wanted the fields {sorted(wanted)}, found {sorted(content)}")
        commit = cls(**content)
        if commit.store_id != store_id or commit.tar != tar:
            raise StoreError(
                f"{name}: belongs to tar {commit.tar} of store {commit.store_id[:12]}, "
                f"not to tar {tar} of store {store_id[:12]}"
            )
        return commit


def commit_file(tar: int) -> str:
    """Name of a tar's commit, from the store's root."""
    return f"commits/{tar:06d}.json"
