"""What a weighted stream must know of its images: class, source and rank of every labelled row."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.errors import UsageError
from softlabel.shards.hashing import sha256_hex
from softlabel.shards.sources import MOST_SOURCES, NAMELESS, SourceBy, tar_sources
from softlabel.shards.status import Status
from softlabel.shards.store import Store
from softlabel.trainer.scores import NEEDED, Ranks, Score, score_of

_KEPT_ROWS = 100_000_000
"""Rows kept in memory, at 20 bytes each; beyond them tars are read again for each epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolRows:
    """The labelled rows of one tar, in order. All arrays are [n]."""

    key_hash: NDArray[np.uint64]
    group: NDArray[np.int64]
    """source * C + class"""
    score: NDArray[np.float32] | None
    """None where confidence does not matter."""


class Pool:
    """The images of a run, read from the store tar by tar; for one thread at a time.

    The class of an image is what its first stored view was called.
    """

    def __init__(
        self,
        store: Store,
        tars: Sequence[int],
        urls: Mapping[int, str],
        *,
        source_by: SourceBy,
        score: Score | None,
    ) -> None:
        self._store = store
        self._tars = tars
        self._urls = urls
        self._by = source_by
        self._score = score
        self._kept: OrderedDict[int, PoolRows] = OrderedDict()
        self._num_kept = 0
        self._numbers: dict[str, int] = {}
        self.ranks = Ranks()
        counted = [self._count(place) for place in range(len(tars))]
        if set(self._numbers) == {NAMELESS}:
            raise UsageError(f"--source-by {source_by}: matches no image of {len(tars)} tar(s)")
        self.sources = tuple(self._numbers)
        """Names, in the order of the first tar that has one."""
        C = store.manifest.num_classes
        self.by_tar: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]] = counted
        """For each tar its groups, and how many rows are of each."""
        self.count = np.zeros((len(self.sources), C), np.int64)
        """[sources, C] rows of each source that are called each class."""
        for group, number in counted:
            np.add.at(self.count.reshape(-1), group, number)

    @property
    def digest(self) -> str:
        """Of all classes, sources and how many images have which: a part of a run's identity."""
        parts = [b"".join((group.tobytes(), number.tobytes())) for group, number in self.by_tar]
        return sha256_hex(["\n".join(self.sources).encode("utf-8", "surrogateescape"), *parts])

    def rows(self, place: int) -> PoolRows:
        """The rows of the tar at a place of the run; StoreError if the store is damaged."""
        if place not in self._kept:
            rows = self._kept[place] = self._read(place)
            self._num_kept += len(rows.group)
            while self._num_kept > _KEPT_ROWS and len(self._kept) > 1:
                self._num_kept -= len(self._kept.popitem(last=False)[1].group)
        self._kept.move_to_end(place)
        return self._kept[place]

    def _count(self, place: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rows = self.rows(place)
        if rows.score is not None:
            self.ranks.add(rows.score.astype(np.float64))
        group, number = np.unique(rows.group, return_counts=True)
        return group, number

    def _read(self, place: int) -> PoolRows:
        tar, store = self._tars[place], self._store
        names = {"status", "key_hash", "topk_class", *(NEEDED[self._score] if self._score else ())}
        arrays = store.read(tar, tuple(sorted(names)))
        status = arrays["status"]
        ok = status == Status.OK
        found = {name: values[ok] for name, values in arrays.items()}
        source = self._sources(tar, len(status))[ok]
        group = source * store.manifest.num_classes + found["topk_class"][:, 0, 0]
        score = None
        if self._score is not None:
            score = score_of(self._score, found, store.manifest).astype(np.float32)
        return PoolRows(key_hash=found["key_hash"], group=group.astype(np.int64), score=score)

    def _sources(self, tar: int, num_members: int) -> NDArray[np.int64]:
        name, url = self._store.tars[tar], self._urls.get(tar)
        found = tar_sources(self._by, name, url=url, num_members=num_members)
        numbers = [self._numbers.setdefault(name, len(self._numbers)) for name in found.names]
        if len(self._numbers) > MOST_SOURCES:
            raise UsageError(
                f"--source-by {self._by}: makes more than {MOST_SOURCES:,} sources; give a pattern "
                "that names groups of images"
            )
        code: NDArray[np.int64] = np.array(numbers, np.int64)[found.code]
        return code
