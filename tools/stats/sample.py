"""A bounded, repeatable sample of a source's images, and its most and least confident ones."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NUM_PICKS = 8
"""Most confident images of a source that are remembered, and as many of the least confident."""


class Sample:
    """The values of the images with the smallest key hashes: all of them up to a capacity.

    Which images those are depends on nothing but the images: not on the order of tars, nor on how
    the counting was split. (A "bottom-k sketch", Cohen and Kaplan 2007.) Of images with one key in
    several tars, those of the first tars come first.
    """

    def __init__(self, capacity: int, *, num_views: int, num_measures: int) -> None:
        self.capacity = capacity
        self.num_seen = 0
        self._key_hash = np.zeros(0, np.uint64)
        self._place = np.zeros((2, 0), np.int64)
        self._values = np.zeros((0, num_views, num_measures))

    @property
    def is_whole(self) -> bool:
        """Whether every image is in it."""
        return self.num_seen == len(self._values)

    @property
    def values(self) -> Floats:
        """[labels, M]: a row for each view of each image in the sample."""
        return self._values.reshape(-1, self._values.shape[-1])

    def add(self, key_hash: NDArray[np.uint64], place: NDArray[np.int64], values: Floats) -> None:
        """Offer images: [N] key hashes, [2, N] tar and row, [N, V, M] values."""
        self.num_seen += len(key_hash)
        self._take(key_hash, place, values)

    def merge(self, other: "Sample") -> None:
        """Offer the images that another sample was offered; its capacity is no smaller."""
        self.num_seen += other.num_seen
        self._take(other._key_hash, other._place, other._values)

    def shrink(self, capacity: int) -> None:
        """Lower the capacity: the sample is then what it would be, had it always been so low."""
        self.capacity = min(capacity, self.capacity)
        self._take(self._key_hash[:0], self._place[:, :0], self._values[:0])

    def _take(self, key_hash: NDArray[np.uint64], place: NDArray[np.int64], values: Floats) -> None:
        if len(self._key_hash) >= self.capacity > 0:
            near = key_hash <= self._key_hash.max()
            key_hash, place, values = key_hash[near], place[:, near], values[near]
        if not len(key_hash) and len(self._key_hash) <= self.capacity:
            return
        key_hash = np.concatenate([self._key_hash, key_hash])
        place = np.concatenate([self._place, place], axis=1)
        values = np.concatenate([self._values, values])
        if len(key_hash) > self.capacity:
            first = np.lexsort((place[1], place[0], key_hash))[: self.capacity]
            key_hash, place, values = key_hash[first], place[:, first], values[first]
        self._key_hash, self._place, self._values = key_hash, place, values


class Pick(NamedTuple):
    """One image, by its first view."""

    p1: float
    key_hash: int
    tar: int
    row: int
    first_class: int
    image_hash: int


@dataclass(frozen=True, slots=True)
class Extremes:
    """The images of a source with the smallest and the largest p1, each image once."""

    least: tuple[Pick, ...] = ()
    most: tuple[Pick, ...] = ()

    def merged(self, other: "Extremes") -> "Extremes":
        """Those of two parts together."""
        return _extremes([*self.least, *other.least], [*self.most, *other.most])


def extremes(
    p1: Floats,
    *,
    key_hash: NDArray[np.uint64],
    tar: int,
    row: NDArray[np.int64],
    first_class: NDArray[np.int64],
    image_hash: NDArray[np.uint64],
) -> Extremes:
    """Those of one tar's images; all arrays are [N]. Equal p1 are taken by key hash."""

    def first(order: NDArray[np.int64]) -> list[Pick]:
        _, once = np.unique(image_hash[order], return_index=True)
        return [
            Pick(
                float(p1[i]),
                int(key_hash[i]),
                tar,
                int(row[i]),
                int(first_class[i]),
                int(image_hash[i]),
            )
            for i in order[np.sort(once)[:NUM_PICKS]]
        ]

    return _extremes(
        first(np.lexsort((row, key_hash, p1))), first(np.lexsort((row, key_hash, -p1)))
    )


def _extremes(least: Iterable[Pick], most: Iterable[Pick]) -> Extremes:
    return Extremes(
        _first_of_each(sorted(least)),
        _first_of_each(sorted(most, key=lambda pick: (-pick.p1, *pick[1:]))),
    )


def _first_of_each(picks: Iterable[Pick]) -> tuple[Pick, ...]:
    images: dict[int, Pick] = {}
    for pick in picks:
        images.setdefault(pick.image_hash, pick)
    return tuple(images.values())[:NUM_PICKS]
