"""Buffers of the order with their labels and encoded images, one being read ahead."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabel.trainer.labels import LabelledRows, LabelReader
from softlabel.trainer.order import Buffer, Order
from softlabel.trainer.tar_files import TarFiles

_AHEAD = 1


@dataclass(frozen=True, slots=True)
class Loaded:
    """The images of a buffer, in order."""

    epoch: int
    start: int
    """Position of the first one in the stream."""
    rows: LabelledRows
    encoded: list[bytes]


@dataclass(frozen=True, kw_only=True)
class Loader:
    """Joins images and labels by byte range; for one thread."""

    order: Order
    tars: Sequence[int]
    """The store's ordinal of each tar of the order."""
    labels: LabelReader
    files: TarFiles

    def loaded(self, position: int, readers: ThreadPoolExecutor) -> Iterator[Loaded]:
        """Buffers without end, from the one that holds `position`."""
        begun: deque[tuple[Buffer, LabelledRows, list[Future[list[bytes]]]]] = deque()
        for buffer in self._announced(position):
            begun.append((buffer, *self._begin(buffer, readers)))
            if len(begun) > _AHEAD:
                yield _finished(*begun.popleft())

    def _announced(self, position: int) -> Iterator[Buffer]:
        """The buffers; two windows of tars are announced before they are read."""
        windows = self.order.windows(position)
        following = next(windows)
        at: tuple[int, int] | None = None
        for buffer in self.order.buffers(position):
            if at != (at := (buffer.epoch, buffer.window)):
                current, following = following, next(windows)
                expected = dict.fromkeys([*current.tolist(), *following.tolist()])
                self.files.expect([self.tars[tar] for tar in expected])
            yield buffer

    def _begin(
        self, buffer: Buffer, readers: ThreadPoolExecutor
    ) -> tuple[LabelledRows, list[Future[list[bytes]]]]:
        parts, reads = [], []
        blocks = (buffer.tar.tolist(), buffer.first.tolist(), buffer.count.tolist())
        for place, first, count in zip(*blocks, strict=True):
            tar = self.tars[place]
            part = self.labels.rows(tar, epoch=buffer.epoch).take(slice(first, first + count))
            parts.append(part)
            reads.append(readers.submit(self.files.read, tar, part.offset, part.size))
        return LabelledRows.joined(parts).take(buffer.shuffle), reads


def _finished(buffer: Buffer, rows: LabelledRows, reads: list[Future[list[bytes]]]) -> Loaded:
    images = [image for read in reads for image in read.result()]
    encoded = [images[place] for place in buffer.shuffle.tolist()]
    return Loaded(buffer.epoch, buffer.start, rows, encoded)


@dataclass(frozen=True, slots=True)
class Piece:
    """Images [first, last) of a buffer."""

    source: Loaded
    first: int
    last: int


def cut(buffers: Iterator[Loaded], *, position: int, length: int) -> Iterator[list[Piece]]:
    """Cut the stream into batches of `length` images from `position` on; most are one piece."""
    source = next(buffers)
    at = position - source.start
    while True:
        pieces: list[Piece] = []
        wanted = length
        while wanted:
            if at == len(source.encoded):
                source, at = next(buffers), 0
            last = min(len(source.encoded), at + wanted)
            pieces.append(Piece(source, at, last))
            wanted -= last - at
            at = last
        yield pieces


def joined_rows(pieces: Sequence[Piece]) -> LabelledRows:
    """The labels of a batch."""
    parts = [piece.source.rows.take(slice(piece.first, piece.last)) for piece in pieces]
    return parts[0] if len(parts) == 1 else LabelledRows.joined(parts)


def joined_numbers(pieces: Sequence[Piece], *, replay: bool) -> NDArray[np.int64]:
    """Which view to render of each image: the labelled one, or a new one each time it comes."""
    parts = [
        piece.source.rows.view[piece.first : piece.last]
        if replay
        else piece.source.epoch + (piece.source.rows.copy[piece.first : piece.last] << 32)
        for piece in pieces
    ]
    return np.concatenate(parts)
