"""Images by their byte range, a block of neighbours at a time."""

import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.errors import IdentityError, TarError
from softlabel.shards.specs import is_local, local_path, redacted
from softlabel.trainer.tar_cache import TarCache

LARGEST_GAP = 128 << 10
"""Bytes between two images that are rather read than sought over."""


class TarFiles:
    """The tars of a run by their ordinal in the store; may be read by several threads."""

    def __init__(
        self,
        urls: Mapping[int, str],
        sizes: Mapping[int, int],
        *,
        cache_dir: Path | None,
        cache_bytes: int,
    ) -> None:
        self._urls = urls
        self._local = {tar: local_path(url) for tar, url in urls.items() if is_local(url)}
        remote = {tar: url for tar, url in urls.items() if tar not in self._local}
        self._cache = (
            TarCache(remote, sizes, folder=cache_dir, limit=cache_bytes) if remote else None
        )

    def name(self, tar: int) -> str:
        """For messages."""
        return redacted(self._urls[tar])

    def expect(self, tars: Sequence[int]) -> None:
        """These tars will be read soon, first come first; no others but those."""
        if self._cache is not None:
            self._cache.expect([tar for tar in tars if tar not in self._local])

    def read(self, tar: int, offset: NDArray[np.int64], size: NDArray[np.int64]) -> list[bytes]:
        """The images at these ascending offsets of a tar.

        Raises:
            TarError: the tar can't be opened, read or fetched.
            IdentityError: it ends before an image does.
        """
        path = self._local.get(tar) or self._path(tar)
        end = offset + size
        cuts = np.flatnonzero(offset[1:] - end[:-1] > LARGEST_GAP) + 1
        images: list[bytes] = []
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                for low, high in pairwise([0, *cuts.tolist(), len(offset)]):
                    start = int(offset[low])
                    data = self._range(handle, tar, start, int(end[high - 1]))
                    bounds = zip(
                        (offset[low:high] - start).tolist(),
                        (end[low:high] - start).tolist(),
                        strict=True,
                    )
                    images += [data[first:last] for first, last in bounds]
            finally:
                os.close(handle)
        except OSError as error:
            raise TarError(f"{self.name(tar)}: can't be read: {error.strerror}") from None
        return images

    def close(self) -> None:
        """Drop what was fetched."""
        if self._cache is not None:
            self._cache.close()

    def _path(self, tar: int) -> Path:
        assert self._cache is not None
        return self._cache.path(tar)

    def _range(self, handle: int, tar: int, start: int, end: int) -> bytes:
        parts = []
        while start < end:
            part = os.pread(handle, end - start, start)
            if not part:
                raise IdentityError(
                    f"{self.name(tar)}: ends at byte {start:,}, an image at {end:,}: it is not the "
                    "tar that was labelled; label it again, or train from the one that was"
                )
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
