"""In which order images are trained on: a pure function of a seed and the images of each tar.

The order is an endless stream of epochs, and a position in it is all that a checkpoint need hold.
In each epoch tars are permuted and cut into windows; the blocks of a window (64 consecutive images
of one tar) are permuted and cut into buffers; the images of a buffer are permuted. So reading stays
in blocks, every image comes once an epoch, and a position is found by one prefix sum over tars.
A sampled stream (sampling.py) is the same thing with other images in each epoch: some several
times, some not at all.

Only raw words of numpy's Philox are used, whose stream numpy guarantees, and stable sorts.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_IMAGES = 64
BUFFER_BLOCKS = 32
WINDOW_TARS = 16

_ORDER_KEY = 0x6F72646572  # sets these streams apart from those of views
_TARS, _BLOCKS, _IMAGES = 1, 2, 3
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Buffer:
    """The unit that is read at once: at most 32 blocks, and the order of their images."""

    epoch: int
    window: int
    """Within the epoch."""
    start: int
    """Position of its first image in the stream."""
    tar: Ints
    """[blocks]"""
    first: Ints
    """[blocks] the block's first image in its tar, counting only images that the epoch shows."""
    count: Ints
    """[blocks]"""
    shuffle: Ints
    """[images] the order, as places in the blocks laid end to end."""

    def images(self) -> tuple[Ints, Ints]:
        """Tar and place in the tar of each image, in order."""
        tar, place = np.repeat(self.tar, self.count), _places(self.first, self.count)
        return tar[self.shuffle], place[self.shuffle]


class Order:
    """The endless stream; a tar is known by its place in `counts`.

    Args:
        counts: images of each tar.
        seed: of all permutations.
        drawn: images of each tar that an epoch shows, an image counting as often as it comes;
            default: each once in every epoch.

    Raises:
        ValueError: no tar has an image.
    """

    def __init__(
        self, counts: Sequence[int], *, seed: int, drawn: Callable[[int], Ints] | None = None
    ) -> None:
        fixed = np.asarray(counts, np.int64)
        self._drawn = drawn or (lambda epoch: fixed)
        self._tars = np.flatnonzero(fixed)
        self._seed = seed
        self._starts = [0]
        self.num_images = int(fixed.sum())
        if not self.num_images:
            raise ValueError("no tar has an image")

    def buffers(self, position: int) -> Iterator[Buffer]:
        """Buffers without end, from the one that holds `position`."""
        epoch, skip = self._find(position)
        while True:
            yield from self._epoch(epoch, skip)
            epoch, skip = epoch + 1, 0

    def windows(self, position: int) -> Iterator[Ints]:
        """The tars of each window without end, from the one that holds `position`."""
        epoch, skip = self._find(position)
        while True:
            tars, counts, bounds = self._windows(epoch)
            sums = _sums(counts, bounds)
            for window in range(_holder(sums, skip), len(sums)):
                yield tars[bounds[window] : bounds[window + 1]]
            epoch, skip = epoch + 1, 0

    def _find(self, position: int) -> tuple[int, int]:
        """The epoch of a position, and how many of its images come before."""
        while self._starts[-1] <= position:
            self._start(len(self._starts))
        epoch = bisect_right(self._starts, position) - 1
        return epoch, position - self._starts[epoch]

    def _start(self, epoch: int) -> int:
        """The position of an epoch's first image."""
        while len(self._starts) <= epoch:
            self._starts.append(self._starts[-1] + int(self._drawn(len(self._starts) - 1).sum()))
        return self._starts[epoch]

    def _windows(self, epoch: int) -> tuple[Ints, Ints, Ints]:
        """The tars of an epoch in order, how many images each shows, and the windows' bounds."""
        tars = self._tars[tar_order(len(self._tars), seed=self._seed, epoch=epoch)]
        counts = self._drawn(epoch)[tars]
        tars, counts = tars[counts > 0], counts[counts > 0]
        return tars, counts, _even_cuts(len(tars), WINDOW_TARS)

    def _epoch(self, epoch: int, skip: int) -> Iterator[Buffer]:
        tars, counts, bounds = self._windows(epoch)
        sums = _sums(counts, bounds)
        for window in range(_holder(sums, skip), len(sums)):
            before = int(sums[:window].sum())
            own = slice(bounds[window], bounds[window + 1])
            yield from self._window(
                epoch, window, tars[own], counts[own], before, max(0, skip - before)
            )

    def _window(
        self, epoch: int, window: int, tars: Ints, counts: Ints, before: int, skip: int
    ) -> Iterator[Buffer]:
        num_blocks = -(-counts // BLOCK_IMAGES)
        tar = np.repeat(tars, num_blocks)
        first = _places(np.zeros_like(num_blocks), num_blocks) * BLOCK_IMAGES
        count = np.minimum(BLOCK_IMAGES, np.repeat(counts, num_blocks) - first)
        order = permutation(len(tar), self._seed, _BLOCKS, epoch, window)
        tar, first, count = tar[order], first[order], count[order]
        bounds = _even_cuts(len(tar), BUFFER_BLOCKS)
        sums = _sums(count, bounds)
        for number in range(_holder(sums, skip), len(sums)):
            blocks = slice(bounds[number], bounds[number + 1])
            shuffle = permutation(
                int(sums[number]), self._seed, _IMAGES, epoch, window << 32 | number
            )
            start = self._start(epoch) + before + int(sums[:number].sum())
            yield Buffer(epoch, window, start, tar[blocks], first[blocks], count[blocks], shuffle)


def tar_order(num_tars: int, *, seed: int, epoch: int) -> Ints:
    """[num_tars] places, in the order in which an epoch comes to them."""
    return permutation(num_tars, seed, _TARS, epoch, 0)


def permutation(length: int, seed: int, level: int, epoch: int, index: int) -> Ints:
    """A permutation of 0..length-1, a pure function of the arguments."""
    key = np.array([seed, _ORDER_KEY], np.uint64)
    counter = np.array([0, level, epoch, index], np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(length)
    order: Ints = np.argsort(words, kind="stable")
    return order


def view_numbers(key_hash: NDArray[np.uint64], *, epoch: int | Ints, views: int) -> Ints:
    """Which view of each image an epoch shows: as many epochs as there are views show each once."""
    return ((key_hash % np.uint64(views)).astype(np.int64) + epoch) % views


def _places(first: Ints, count: Ints) -> Ints:
    """first[0], first[0] + 1, ... (count[0] of them), then those from first[1], and so on."""
    ends = np.cumsum(count)
    places: Ints = np.arange(ends[-1]) + np.repeat(first - (ends - count), count)
    return places


def _even_cuts(length: int, most: int) -> Ints:
    """Bounds of the fewest parts of at most `most`, all of nearly one size."""
    parts = max(1, -(-length // most))
    cuts: Ints = np.arange(parts + 1) * length // parts
    return cuts


def _sums(values: Ints, bounds: Ints) -> Ints:
    # An epoch of a sampled stream may show nothing at all.
    sums: Ints = np.add.reduceat(values, bounds[:-1]) if len(values) else np.zeros(0, np.int64)
    return sums


def _holder(sums: Ints, skip: int) -> int:
    """Which part holds the image after the first `skip`."""
    return int(np.searchsorted(np.cumsum(sums), skip, side="right"))
