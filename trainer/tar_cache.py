"""Remote tars as local files: fetched whole, ahead of their use, and dropped when room is short."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from softlabel.shards.durable import TEMPORARY
from softlabel.shards.errors import IdentityError, MachineError, TarError
from softlabel.shards.hashing import sha256_hex
from softlabel.shards.specs import open_tar, redacted

_FETCHERS = 4
_CHUNK_BYTES = 8 << 20
_ATTEMPTS = 3
_FIRST_PAUSE_S = 1.0


class TarCache:
    """Keeps fetched tars in a folder, up to a limit that only tars at work may exceed.

    One run at a time uses a folder; what an earlier run left there is used if its size is right.
    """

    def __init__(
        self, urls: Mapping[int, str], sizes: Mapping[int, int], *, folder: Path | None, limit: int
    ) -> None:
        self._urls = urls
        self._sizes = sizes
        self._limit = limit
        self._temporary = folder is None
        try:
            self._folder = folder or Path(tempfile.mkdtemp(prefix="softlabel-tars-"))
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(f"--cache-dir {folder}: {error.strerror}") from None
        self._fetched: dict[int, Future[Path]] = {}
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(_FETCHERS, thread_name_prefix="fetch")

    def expect(self, tars: Sequence[int]) -> None:
        """Begin to fetch the tars whose use is about to begin, in this order; drop old ones.

        For one thread, with all tars that are in use or will be next.
        """
        room = self._limit - sum(self._sizes[tar] for tar in {*self._fetched, *tars})
        for tar in [tar for tar in self._fetched if tar not in tars]:
            if room >= 0:
                break
            dropped = self._fetched.pop(tar)
            if dropped.exception() is None:
                dropped.result().unlink(missing_ok=True)
            room += self._sizes[tar]
        for tar in tars:
            # Out and in again: the dictionary's order is that of the last use.
            kept = self._fetched.pop(tar, None)
            self._fetched[tar] = kept or self._pool.submit(self._fetch, tar)

    def path(self, tar: int) -> Path:
        """Where an expected tar lies, once it does.

        Raises:
            TarError: it can't be fetched.
            IdentityError: it has another size than when it was labelled.
            MachineError: the disk is full, or what the URL's scheme needs is not installed.
        """
        return self._fetched[tar].result()

    def close(self) -> None:
        """Stop fetching; a temporary folder goes."""
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _fetch(self, tar: int) -> Path:
        url = self._urls[tar]
        path = self._folder / f"{sha256_hex([url.encode()])[:24]}.tar"
        if path.is_file() and path.stat().st_size == self._sizes[tar]:
            return path
        for attempt in range(_ATTEMPTS):
            try:
                return self._download(url, path, self._sizes[tar])
            except (TarError, OSError) as error:
                reason = error
                if attempt + 1 < _ATTEMPTS and self._stopped.wait(_FIRST_PAUSE_S * 2**attempt):
                    break
        raise TarError(f"{redacted(url)}: can't be fetched: {reason}")

    def _download(self, url: str, path: Path, wanted: int) -> Path:
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{time.monotonic_ns()}{TEMPORARY}")
        try:
            with open_tar(url) as (source, _), temporary.open("xb") as target:
                while not self._stopped.is_set() and (data := source.read(_CHUNK_BYTES)):
                    self._write(target, data)
            found = temporary.stat().st_size
            if found != wanted and self._stopped.is_set():
                raise TarError("the run ended")
            if found != wanted:
                raise IdentityError(
                    f"{redacted(url)}: had {wanted:,} bytes when it was labelled, now it has "
                    f"{found:,}; train from the tar that was labelled, or label this one"
                )
            return temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _write(self, target: BinaryIO, data: bytes) -> None:
        try:
            target.write(data)
        except OSError as error:
            raise MachineError(
                f"{self._folder}: can't keep a remote tar: {error.strerror}; make room, or give "
                "--cache-dir on a larger disk, or a smaller --cache-gb"
            ) from None
