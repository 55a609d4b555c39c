"""Teacher labels on disk: create, open, what is pending, write one tar, read one tar.

    manifest.json        what decides the labels; its checksum is the store id
    tars/NNNN.json       the ordered names of the tars, append-only
    commits/NNNNNN.json  one a tar, written after everything it speaks of is on disk
    topk_logit/ ...      zarr arrays; a tar is one shard file in each
    runs/                logs, outside every promise

A killed run leaves whole tars only. Several processes may write one store. Only local folders so
far. `invariants.problems` checks what this module promises.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards import durable
from softlabel.shards.arrays import GROUP_METADATA, ArrayCodec, shard_file
from softlabel.shards.commits import Commit, commit_file
from softlabel.shards.errors import IdentityError, MachineError, StoreError, UsageError
from softlabel.shards.failpoints import reached
from softlabel.shards.hashing import sha256_hex
from softlabel.shards.head import Head, head_files, read_head
from softlabel.shards.schema import Manifest, differences
from softlabel.shards.sealed import seal, unseal
from softlabel.shards.status import Status

MANIFEST = "manifest.json"
Rows = Mapping[str, NDArray[Any]]
"""Rows of one tar by array name: [n, ...] with the schema's dtype."""


class Store:
    """The labels of a collection by one teacher. Made by `create` or `open_store`."""

    def __init__(self, path: Path, manifest: Manifest, tars: Sequence[str]) -> None:
        self.path = path
        self.manifest = manifest
        self.tars = tuple(tars)
        self._codecs = {spec.name: ArrayCodec(manifest, spec) for spec in manifest.arrays}

    @property
    def store_id(self) -> str:
        """The checksum of the manifest."""
        return self.manifest.store_id

    def commit(self, tar: int) -> Commit | None:
        """A tar's commit, or None while it is pending; StoreError if it is damaged."""
        name = commit_file(tar)
        try:
            data = (self.path / name).read_bytes()
        except FileNotFoundError:
            return None
        return Commit.unseal(data, name=f"{self.path}/{name}", store_id=self.store_id, tar=tar)

    def commits(self) -> dict[int, Commit]:
        """All commits by tar."""
        found = {tar: self.commit(tar) for tar in sorted(self._committed())}
        return {tar: commit for tar, commit in found.items() if commit is not None}

    def pending(self) -> list[int]:
        """The tars without a commit, in order."""
        done = self._committed()
        return [tar for tar in range(len(self.tars)) if tar not in done]

    def _committed(self) -> set[int]:
        names = {path.name for path in (self.path / "commits").glob("*.json")}
        return {tar for tar in range(len(self.tars)) if f"{tar:06d}.json" in names}

    def write(self, tar: int, rows: Rows, *, tar_size: int, tar_sha256: str) -> bool:
        """Write a tar's rows and commit it; False if it had been committed meanwhile.

        Args:
            tar: ordinal, below T.
            rows: every array of the schema, [n, ...] with n <= R: one row a member, in order.
            tar_size: bytes of the tar.
            tar_sha256: of those bytes.

        Raises:
            ValueError: an array is missing, or has another shape or dtype than the schema's.
            MachineError: the disk is full, or not writable.
        """
        num_rows = self._check_rows(rows)
        reached("commit-begins")
        try:
            if self.commit(tar) is not None:
                return False
            files = self._write_arrays(tar, rows)
            status, counts = np.unique(rows["status"], return_counts=True)
            commit = Commit(
                store_id=self.store_id,
                tar=tar,
                generation=1,
                members=num_rows,
                status_counts={str(s): int(n) for s, n in zip(status, counts, strict=True)},
                tar_size=tar_size,
                tar_sha256=tar_sha256,
                files=files,
            )
            written = durable.put_if_absent(self.path / commit_file(tar), commit.seal())
        except OSError as error:
            raise MachineError(
                f"{self.path}: can't write tar {tar}: {error.strerror}; "
                "tars committed so far are safe, rerun the same command to go on"
            ) from error
        reached("committed")
        return written

    def _write_arrays(self, tar: int, rows: Rows) -> dict[str, str]:
        encoded = {name: codec.encode(rows[name]) for name, codec in self._codecs.items()}
        durable.replace_all(
            {
                self.path / shard_file(codec.spec, tar): encoded[name]
                for name, codec in self._codecs.items()
            }
        )
        reached("data-written")
        return {name: sha256_hex([data]) for name, data in encoded.items()}

    def _check_rows(self, rows: Rows) -> int:
        num_rows = len(rows["status"])
        if num_rows > self.manifest.rows_per_tar:
            raise ValueError(f"{num_rows} rows, the store has {self.manifest.rows_per_tar} a tar")
        for name, codec in self._codecs.items():
            wanted = (num_rows, *codec.shape[1:])
            if rows[name].shape != wanted or rows[name].dtype != codec.spec.dtype:
                raise ValueError(
                    f"{name}: wanted {wanted} {codec.spec.dtype}, "
                    f"got {rows[name].shape} {rows[name].dtype}"
                )
        return num_rows

    def read(self, tar: int, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """A committed tar's rows [members, ...], of the arrays named or of all.

        Raises:
            StoreError: the tar is not committed, or a shard file is missing or damaged.
        """
        commit = self.commit(tar)
        if commit is None:
            raise StoreError(f"{self.path}: tar {tar} ({self.tars[tar]}) is not labelled yet")
        return {
            name: self.read_shard(tar, name)[: commit.members] for name in names or self._codecs
        }

    def read_shard(self, tar: int, name: str) -> NDArray[Any]:
        """All R rows of one array's shard, committed or not; StoreError if missing or damaged."""
        codec = self._codecs[name]
        file = shard_file(codec.spec, tar)
        try:
            return codec.decode((self.path / file).read_bytes())
        except FileNotFoundError:
            problem = "is missing"
        except (ValueError, RuntimeError) as error:
            problem = f"is damaged ({error})"
        raise StoreError(f"{self.path}/{file} {problem}; run kd-store verify {self.path}")

    def head(self) -> Head | None:
        """The teacher's last layer, where it was stored; StoreError if it is damaged."""
        return read_head(self.path, self.manifest)

    def codec(self, name: str) -> ArrayCodec:
        """The codec of one array."""
        return self._codecs[name]

    @classmethod
    def create(
        cls, path: Path, manifest: Manifest, tars: Sequence[str], *, head: Head | None = None
    ) -> "Store":
        """Make a store, or finish making one; the manifest comes last and makes it one.

        `head` is the teacher's last layer, where embeddings are stored and it is linear.

        Raises:
            UsageError: `path` holds something else.
            IdentityError: another run made a different store there meanwhile.
            MachineError: `path` can't be written.
        """
        store = cls(path, manifest, tars)
        if not is_store(path):
            try:
                store._lay_out(head_files(head) if head is not None else {})
            except OSError as error:
                raise MachineError(f"--out {path}: can't be written: {error.strerror}") from error
        found = open_store(path)
        store._refuse_other(found)
        return found

    def _lay_out(self, head: Mapping[str, bytes]) -> None:
        path = self.path
        path.mkdir(parents=True, exist_ok=True)
        folders = {"tars", "commits", "runs", *self._codecs}
        folders |= {name.partition("/")[0] for name in head}
        known = {*folders, "zarr.json", MANIFEST}
        names_there = {p.name for p in path.iterdir() if p.suffix != durable.TEMPORARY}
        foreign = sorted(names_there - known)
        if foreign:
            raise UsageError(
                f"--out {path}: wanted a new or empty folder, found {foreign[0]} in it"
            )
        for name in sorted(folders):
            (path / name).mkdir(exist_ok=True)
        metadata = {
            path / name / "zarr.json": codec.metadata(num_tars=len(self.tars))
            for name, codec in self._codecs.items()
        }
        names = {path / "tars/0000.json": seal({"names": list(self.tars)})}
        extra = {path / name: data for name, data in head.items()}
        durable.replace_all({path / "zarr.json": GROUP_METADATA, **metadata, **extra, **names})
        durable.put_if_absent(path / MANIFEST, seal(self.manifest.to_dict()))

    def _refuse_other(self, found: "Store") -> None:
        different = differences(self.manifest, found.manifest)
        if found.tars != self.tars:
            different.append("the shard list")
        if different:
            raise IdentityError(
                f"--out {self.path}: another run made a different store there: "
                + "; ".join(different)
            )


def is_store(path: Path) -> bool:
    """Whether a label store stands at `path`."""
    return (path / MANIFEST).is_file()


def open_store(path: Path) -> Store:
    """Open a store; UsageError if there is none, StoreError if it is damaged."""
    if not is_store(path):
        raise UsageError(f"{path}: wanted a label store (made by kd-label), found none")
    content = unseal((path / MANIFEST).read_bytes(), name=f"{path}/{MANIFEST}")
    return Store(path, Manifest.from_dict(content), _tar_names(path))


def _tar_names(path: Path) -> list[str]:
    names: list[str] = []
    for number, file in enumerate(sorted((path / "tars").glob("*.json"))):
        content = unseal(file.read_bytes(), name=str(file))
        listed = content.get("names")
        if file.name != f"{number:04d}.json" or not isinstance(listed, list):
            raise StoreError(f"{file}: wanted tars/{number:04d}.json with a list of names")
        names += map(str, listed)
    if not names:
        raise StoreError(f"{path}: the list of tars, tars/0000.json, is missing")
    return names


def delete_store(path: Path) -> None:
    """Delete a store, the manifest first, so that a killed deletion leaves no store behind."""
    if is_store(path):
        (path / MANIFEST).unlink()
        durable.sync_directory(path)
    for folder in os.scandir(path):
        if folder.is_dir(follow_symlinks=False):
            shutil.rmtree(folder.path)
        else:
            Path(folder.path).unlink()


def remove_leftovers(store: Store) -> int:
    """Delete the temporary files of killed writers; how many."""
    folders = [store.path, *(path for path in store.path.iterdir() if path.is_dir())]
    return sum(durable.remove_leftovers(folder) for folder in folders)


def bad_rows(commits: Mapping[int, Commit]) -> tuple[int, int]:
    """Members whose status is not ok, and all members, over some commits."""
    total = sum(commit.members for commit in commits.values())
    good = sum(commit.status_counts.get(str(int(Status.OK)), 0) for commit in commits.values())
    return total - good, total
