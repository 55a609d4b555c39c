"""Batches in order: one thread plans, several read and decode, ahead of the training loop."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from softlabel.trainer.labels import LabelledRows
from softlabel.trainer.loading import Loader, Piece, cut, joined_numbers, joined_rows
from softlabel.trainer.rendering import Renderer

_CHUNK_IMAGES = 32
_READERS = 2
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B images with their labels, in host memory."""

    step: int
    epoch: int
    """Of the first image."""
    pixels: Tensor
    """[B, H, W, 3] uint8 RGB"""
    rows: LabelledRows
    weight: NDArray[np.float32]
    """[B] in the loss; 0 for what fills up the last batch."""
    num_counted: int
    """Rows that are no filling."""


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """What is read, and how far ahead."""

    batch_size: int
    num_steps: int
    num_rows: int
    """Positions of the order that count; those after it only fill the last batch."""
    workers: int
    replay: bool
    """Show the labelled views; otherwise a new one each epoch."""
    pin_memory: bool


class BatchStream:
    """An iterator of batches that knows how long its reader has waited."""

    def __init__(self, items: "_Queue", ended: Callable[[], bool]) -> None:
        self._items = items
        self._ended = ended
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            start = time.perf_counter()
            item = self._next()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            batch, rendered = item
            for part in rendered:
                part.result()
            self.waited_s += time.perf_counter() - start
            yield batch

    def _next(self) -> "_Item":
        while not self._ended():
            try:
                return self._items.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        return None


_Item = tuple[Batch, list[Future[None]]] | BaseException | None
_Queue = queue.Queue[_Item]


@contextmanager
def stream(
    loader: Loader,
    renderer: Renderer,
    settings: StreamSettings,
    *,
    first_step: int,
    ended: Callable[[], bool],
) -> Iterator[BatchStream]:
    """The batches from `first_step` on, until `ended()`; leaving the block stops all threads."""
    in_flight = 2 + 2 * settings.workers * _CHUNK_IMAGES // settings.batch_size
    items: _Queue = queue.Queue(maxsize=in_flight)
    stopped = threading.Event()
    with (
        ThreadPoolExecutor(_READERS, thread_name_prefix="read") as readers,
        ThreadPoolExecutor(settings.workers, thread_name_prefix="decode") as decoders,
    ):
        plan = _Planner(loader, renderer, settings, readers, decoders, items, stopped)
        planner = threading.Thread(target=plan.run, args=(first_step,), name="planner")
        planner.start()
        try:
            yield BatchStream(items, ended)
        finally:
            stopped.set()
            loader.files.close()
            planner.join()
            readers.shutdown(cancel_futures=True)
            decoders.shutdown(cancel_futures=True)


class _StoppedError(Exception):
    """The training loop has left."""


@dataclass(frozen=True)
class _Planner:
    loader: Loader
    renderer: Renderer
    settings: StreamSettings
    readers: ThreadPoolExecutor
    decoders: ThreadPoolExecutor
    items: _Queue
    stopped: threading.Event

    def run(self, first_step: int) -> None:
        try:
            position = first_step * self.settings.batch_size
            buffers = self.loader.loaded(position, self.readers)
            batches = cut(buffers, position=position, length=self.settings.batch_size)
            for step in range(first_step, self.settings.num_steps):
                self._put(self._begin(step, next(batches)))
            self._put(None)
        except _StoppedError:
            return
        except BaseException as error:
            with contextlib.suppress(_StoppedError):
                self._put(error)

    def _put(self, item: _Item) -> None:
        while not self.stopped.is_set():
            try:
                self.items.put(item, timeout=_POLL_S)
                return
            except queue.Full:
                continue
        raise _StoppedError

    def _begin(self, step: int, pieces: list[Piece]) -> tuple[Batch, list[Future[None]]]:
        settings, renderer = self.settings, self.renderer
        shape = (settings.batch_size, renderer.height, renderer.width, 3)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=settings.pin_memory)
        rows = joined_rows(pieces)
        numbers = joined_numbers(pieces, replay=settings.replay)
        encoded = [image for p in pieces for image in p.source.encoded[p.first : p.last]]
        out: NDArray[np.uint8] = pixels.numpy()
        rendered = [
            self.decoders.submit(
                renderer.render, encoded[part], rows.take(part), numbers[part], out[part]
            )
            for part in _parts(settings.batch_size)
        ]
        position = np.arange(step * settings.batch_size, (step + 1) * settings.batch_size)
        counted = position < settings.num_rows
        batch = Batch(
            step=step,
            epoch=pieces[0].source.epoch,
            pixels=pixels,
            rows=rows,
            weight=rows.weight * counted,
            num_counted=int(counted.sum()),
        )
        return batch, rendered


def _parts(length: int) -> list[slice]:
    return [slice(low, low + _CHUNK_IMAGES) for low in range(0, length, _CHUNK_IMAGES)]
