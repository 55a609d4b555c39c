"""How many images are exact copies of another, within their source and in other sources."""

import numpy as np
from numpy.typing import NDArray

MOST_HASHES = 1 << 23
"""Different images held at once, at 20 bytes each (and about twice as much while sorting). Beyond
them only a half, a quarter, ... of all hashes is counted: copies share a hash, so all are in that
part or none, and the count times 2, 4, ... is right on average."""


class Duplicates:
    """Counts of image hashes by source; `add` them, then ask."""

    def __init__(self, most_hashes: int = MOST_HASHES) -> None:
        self._most = most_hashes
        self._halvings = 0
        self._hash = np.zeros(0, np.uint64)
        self._source = np.zeros(0, np.int32)
        self._count = np.zeros(0, np.int64)
        self._waiting: list[tuple[NDArray[np.uint64], NDArray[np.int32]]] = []
        self._num_waiting = 0

    @property
    def factor(self) -> int:
        """What counts were multiplied with: 1 where all images were counted, 2, 4, ... else."""
        self._settle()
        return 1 << self._halvings

    def add(self, image_hash: NDArray[np.uint64], source: NDArray[np.int32]) -> None:
        """Count images: [N] hashes, [N] numbers of their sources."""
        kept = self._is_counted(image_hash)
        self._waiting.append((image_hash[kept], source[kept]))
        self._num_waiting += int(kept.sum())
        if self._num_waiting > self._most // 2:
            self._settle()

    def within(self, num_sources: int) -> NDArray[np.int64]:
        """[sources] images that another image of the same source equals, but for the first."""
        factor = self.factor
        found = np.bincount(self._source, self._count - 1, num_sources)
        return np.asarray(found * factor, np.int64)

    def shared(self, num_sources: int) -> NDArray[np.int64]:
        """[sources] images that an image of another source equals."""
        factor = self.factor
        _, group, size = np.unique(self._hash, return_inverse=True, return_counts=True)
        several = size[group] > 1
        found = np.bincount(self._source[several], self._count[several], num_sources)
        return np.asarray(found * factor, np.int64)

    def total(self) -> int:
        """Images that another image of whatever source equals, but for the first."""
        factor = self.factor
        return int(self._count.sum() - len(np.unique(self._hash))) * factor

    def _is_counted(self, image_hash: NDArray[np.uint64]) -> NDArray[np.bool_]:
        low = np.uint64((1 << self._halvings) - 1)
        return np.asarray(image_hash & low == 0, np.bool_)

    def _settle(self) -> None:
        """Bring the images that wait in order, each pair of hash and source once."""
        if not self._waiting:
            return
        hashes = np.concatenate([self._hash, *(h for h, _ in self._waiting)])
        sources = np.concatenate([self._source, *(s for _, s in self._waiting)])
        counts = np.concatenate([self._count, np.ones(self._num_waiting, np.int64)])
        self._waiting, self._num_waiting = [], 0
        order = np.lexsort((sources, hashes))
        hashes, sources, counts = hashes[order], sources[order], counts[order]
        new = np.ones(len(hashes), np.bool_)
        new[1:] = (hashes[1:] != hashes[:-1]) | (sources[1:] != sources[:-1])
        first = np.flatnonzero(new)
        self._hash, self._source = hashes[first], sources[first]
        self._count = np.add.reduceat(counts, first) if len(first) else counts
        while len(self._hash) > self._most:
            self._halvings += 1
            kept = self._is_counted(self._hash)
            self._hash, self._source = self._hash[kept], self._source[kept]
            self._count = self._count[kept]
