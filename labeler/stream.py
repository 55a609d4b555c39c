"""From tars to pixels: one thread reads, several decode, and everything arrives in order.

The reader runs ahead into the next tar while the last one is still being labelled, as far as the
queue is deep; that, and nothing else, bounds the memory.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabel.labeler.rows import MemberRow
from softlabel.shards.errors import SoftLabelError, TarError
from softlabel.shards.members import Member, members
from softlabel.shards.specs import open_tar, redacted
from softlabel.shards.tars import TarStream

_CHUNK_ENCODED_BYTES = 16 << 20
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive members of a tar, decoded."""

    tar: int
    rows: list[MemberRow]
    pixels: NDArray[np.uint8]
    """[good members x views, H, W, 3], the views of a member side by side."""
    busy_s: float
    """Time that a decoding thread spent on it."""


@dataclass(frozen=True, slots=True)
class TarEnd:
    """The tar was read to its end marker."""

    tar: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TarFailed:
    """The tar could not be read to its end; what came of it is not to be committed."""

    tar: int
    error: SoftLabelError


Item = Chunk | TarEnd | TarFailed
Decode = Callable[[int, Sequence[Member]], Chunk]
_Queue = queue.Queue["Future[Chunk] | TarEnd | TarFailed | BaseException | None"]


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """How far and how wide the stream runs."""

    workers: int
    chunk_members: int
    """Members decoded as one piece of work."""
    image_ext: tuple[str, ...]
    rows_per_tar: int


@contextmanager
def stream(
    tars: Sequence[tuple[int, str]], decode: Decode, settings: StreamSettings
) -> Iterator[Iterator[Item]]:
    """The items of some (ordinal, URL) tars in order; leaving the block stops all threads."""
    # Deep enough that every decoder has its next piece waiting while the teacher takes one.
    items: _Queue = queue.Queue(maxsize=2 * settings.workers + 2)
    stopped = threading.Event()
    with ThreadPoolExecutor(settings.workers, thread_name_prefix="decode") as pool:
        reader = threading.Thread(
            target=_read_all, args=(tars, decode, settings, pool, items, stopped), name="reader"
        )
        reader.start()
        try:
            yield _in_order(items)
        finally:
            stopped.set()
            reader.join()
            pool.shutdown(cancel_futures=True)


def _in_order(items: _Queue) -> Iterator[Item]:
    while True:
        item = items.get()
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item.result() if isinstance(item, Future) else item


class _StoppedError(Exception):
    """The consumer has left."""


def _read_all(
    tars: Sequence[tuple[int, str]],
    decode: Decode,
    settings: StreamSettings,
    pool: ThreadPoolExecutor,
    items: _Queue,
    stopped: threading.Event,
) -> None:
    def put(item: "Future[Chunk] | TarEnd | TarFailed | BaseException | None") -> None:
        while not stopped.is_set():
            try:
                items.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue
        raise _StoppedError

    try:
        for tar, url in tars:
            try:
                end = _read_tar(tar, url, settings, lambda t, m: put(pool.submit(decode, t, m)))
            except SoftLabelError as error:
                put(TarFailed(tar, error))
            else:
                put(end)
        put(None)
    except _StoppedError:
        return
    except BaseException as error:
        items.put(error)


def _read_tar(
    tar: int,
    url: str,
    settings: StreamSettings,
    submit: Callable[[int, Sequence[Member]], None],
) -> TarEnd:
    with open_tar(url) as (file, size):
        source = TarStream(file, name=redacted(url), size=size)
        chunk: list[Member] = []
        encoded = 0
        for member in members(source, image_ext=settings.image_ext):
            if member.ordinal == settings.rows_per_tar:
                raise TarError(
                    f"{source.name}: has more than the {settings.rows_per_tar} members that the "
                    "store reserves a tar; make the store with a larger --rows-per-tar"
                )
            chunk.append(member)
            encoded += len(member.image or b"")
            if len(chunk) == settings.chunk_members or encoded > _CHUNK_ENCODED_BYTES:
                submit(tar, chunk)
                chunk, encoded = [], 0
        if chunk:
            submit(tar, chunk)
        return TarEnd(tar, source.position, source.sha256)


def timed(decode: Callable[[int, Sequence[Member]], Chunk]) -> Decode:
    """`decode` with its processor time in the chunk."""

    def run(tar: int, some: Sequence[Member]) -> Chunk:
        start = time.thread_time()
        chunk = decode(tar, some)
        return Chunk(tar, chunk.rows, chunk.pixels, time.thread_time() - start)

    return run
