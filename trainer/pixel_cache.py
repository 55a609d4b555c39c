"""Rendered views kept in memory: small images cost more to decode than to train on."""

import threading

import numpy as np
from numpy.typing import NDArray

_ENTRY_BYTES = 300
"""What a kept view costs beside its pixels: key, array object and place in the dictionary."""

Place = tuple[int, int, int]
"""Tar ordinal, member ordinal, number of the view."""


class PixelCache:
    """Keeps what comes first until it is full, and that for good; for several threads.

    In a stream that shows every image once an epoch, dropping old ones for new ones would drop each
    just before it comes again.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._left = limit_bytes
        self._kept: dict[Place, NDArray[np.uint8]] = {}
        self._lock = threading.Lock()

    def get(self, place: Place) -> NDArray[np.uint8] | None:
        """The view's pixels [H, W, 3], not to be changed; None if they are not kept."""
        return self._kept.get(place)

    def put(self, place: Place, pixels: NDArray[np.uint8]) -> None:
        """Keep a copy if there is room."""
        needed = pixels.nbytes + _ENTRY_BYTES
        if needed > self._left:
            return
        with self._lock:
            if place not in self._kept and needed <= self._left:
                self._kept[place] = pixels.copy()
                self._left -= needed
