"""In which order images are trained on: a pure function of a seed and the images of each tar.

The order is an endless stream of epochs, and a position in it is all that a checkpoint need hold.
In each epoch tars are permuted and cut into windows; the blocks of a window (64 consecutive images
of one tar) are permuted and cut into buffers; the images of a buffer are permuted. So reading stays
in blocks, every image comes once an epoch, and a position is found by one prefix sum over tars.

Only raw words of numpy's Philox are used, whose stream numpy guarantees, and stable sorts.
"""

from collections.abc import Iterator, Sequence
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
    """[blocks] the block's first image in its tar, counting only images that are trained on."""
    count: Ints
    """[blocks]"""
    shuffle: Ints
    """[images] the order, as places in the blocks laid end to end."""

    def images(self) -> tuple[Ints, Ints]:
        """Tar and place in the tar of each image, in order."""
        tar, place = np.repeat(self.tar, self.count), _places(self.first, self.count)
        return tar[self.shuffle], place[self.shuffle]


class Order:
    """The endless stream; a tar is known by its place in `counts`."""

    def __init__(self, counts: Sequence[int], *, seed: int) -> None:
        self._counts = np.asarray(counts, np.int64)
        self._tars = np.flatnonzero(self._counts)
        self._seed = seed
        self.num_images = int(self._counts.sum())
        if not self.num_images:
            raise ValueError("no tar has an image")

    def buffers(self, position: int) -> Iterator[Buffer]:
        """Buffers without end, from the one that holds `position`."""
        epoch, skip = divmod(position, self.num_images)
        while True:
            yield from self._epoch(epoch, skip)
            epoch, skip = epoch + 1, 0

    def windows(self, position: int) -> Iterator[Ints]:
        """The tars of each window without end, from the one that holds `position`."""
        epoch, skip = divmod(position, self.num_images)
        while True:
            tars, bounds = self._windows(epoch)
            sums = _sums(self._counts[tars], bounds)
            for window in range(_holder(sums, skip), len(sums)):
                yield tars[bounds[window] : bounds[window + 1]]
            epoch, skip = epoch + 1, 0

    def _windows(self, epoch: int) -> tuple[Ints, Ints]:
        tars = self._tars[permutation(len(self._tars), self._seed, _TARS, epoch, 0)]
        return tars, _even_cuts(len(tars), WINDOW_TARS)

    def _epoch(self, epoch: int, skip: int) -> Iterator[Buffer]:
        tars, bounds = self._windows(epoch)
        sums = _sums(self._counts[tars], bounds)
        for window in range(_holder(sums, skip), len(sums)):
            before = int(sums[:window].sum())
            members = tars[bounds[window] : bounds[window + 1]]
            yield from self._window(epoch, window, members, before, max(0, skip - before))

    def _window(
        self, epoch: int, window: int, tars: Ints, before: int, skip: int
    ) -> Iterator[Buffer]:
        num_blocks = -(-self._counts[tars] // BLOCK_IMAGES)
        tar = np.repeat(tars, num_blocks)
        first = _places(np.zeros_like(num_blocks), num_blocks) * BLOCK_IMAGES
        count = np.minimum(BLOCK_IMAGES, self._counts[tar] - first)
        order = permutation(len(tar), self._seed, _BLOCKS, epoch, window)
        tar, first, count = tar[order], first[order], count[order]
        bounds = _even_cuts(len(tar), BUFFER_BLOCKS)
        sums = _sums(count, bounds)
        for number in range(_holder(sums, skip), len(sums)):
            blocks = slice(bounds[number], bounds[number + 1])
            shuffle = permutation(
                int(sums[number]), self._seed, _IMAGES, epoch, window << 32 | number
            )
            start = epoch * self.num_images + before + int(sums[:number].sum())
            yield Buffer(epoch, window, start, tar[blocks], first[blocks], count[blocks], shuffle)


def permutation(length: int, seed: int, level: int, epoch: int, index: int) -> Ints:
    """A permutation of 0..length-1, a pure function of the arguments."""
    key = np.array([seed, _ORDER_KEY], np.uint64)
    counter = np.array([0, level, epoch, index], np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(length)
    order: Ints = np.argsort(words, kind="stable")
    return order


def view_numbers(key_hash: NDArray[np.uint64], *, epoch: int, views: int) -> Ints:
    """Which view of each image an epoch shows: as many epochs as there are views show each once."""
    return ((key_hash % np.uint64(views)).astype(np.int64) + epoch) % views


def _places(first: Ints, count: Ints) -> Ints:
    """first[0], first[0] + 1, ... (count[0] of them), then those from first[1], and so on."""
    ends = np.cumsum(count)
    places: Ints = np.arange(ends[-1]) + np.repeat(first - (ends - count), count)
    return places


def _even_cuts(length: int, most: int) -> Ints:
    """Bounds of the fewest parts of at most `most`, all of nearly one size."""
    parts = -(-length // most)
    cuts: Ints = np.arange(parts + 1) * length // parts
    return cuts


def _sums(values: Ints, bounds: Ints) -> Ints:
    sums: Ints = np.add.reduceat(values, bounds[:-1])
    return sums


def _holder(sums: Ints, skip: int) -> int:
    """Which part holds the image after the first `skip`."""
    return int(np.searchsorted(np.cumsum(sums), skip, side="right"))
