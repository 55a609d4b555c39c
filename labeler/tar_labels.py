"""The middle of a run: chunks of pixels in, committed tars out."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.labeler.rows import MemberRow, TarRows
from softlabel.labeler.session import TeacherSession
from softlabel.labeler.stream import Chunk, Item, TarEnd, TarFailed
from softlabel.shards.errors import SoftLabelError
from softlabel.shards.progress import Progress
from softlabel.shards.statistics import LabelStatistics
from softlabel.shards.status import Status
from softlabel.shards.stopping import StopRequest
from softlabel.shards.store import Store

_SAMPLE_VIEWS = 64
_BAD_EXAMPLES = 5


@dataclass
class StageTimes:
    """Where the time went, in seconds; stages overlap, so they don't add up to the whole."""

    decode: float = 0.0
    """Processor time of all decoding threads."""
    teacher: float = 0.0
    """In the teacher."""
    wait_images: float = 0.0
    """The teacher waited for pixels."""
    wait_disk: float = 0.0
    """The teacher waited for the writer."""
    write: float = 0.0
    """The writer was encoding and flushing."""
    total: float = 0.0


class _Batcher:
    """Gathers pixels of one tar into batches of one size and runs them."""

    def __init__(self, session: TeacherSession, batch_size: int, times: StageTimes) -> None:
        self._session = session
        self._size = batch_size
        self._times = times
        self._waiting: list[NDArray[np.uint8]] = []
        self._count = 0

    def add(self, pixels: NDArray[np.uint8], rows: TarRows) -> None:
        if not len(pixels):
            return
        self._waiting.append(pixels)
        self._count += len(pixels)
        if self._count >= self._size:
            whole = np.concatenate(self._waiting) if len(self._waiting) > 1 else pixels
            full = self._count - self._count % self._size
            self._run(whole[:full], rows)
            self._waiting, self._count = [whole[full:]], self._count - full

    def flush(self, rows: TarRows) -> None:
        """Run what is left, padded to a whole batch."""
        if self._count:
            self._run(np.concatenate(self._waiting), rows)
        self._waiting, self._count = [], 0

    def _run(self, pixels: NDArray[np.uint8], rows: TarRows) -> None:
        start = time.perf_counter()
        rows.add_outputs(self._session.run_padded(pixels, batch_size=self._size))
        self._times.teacher += time.perf_counter() - start


@dataclass
class Labelling:
    """Consumes a stream of chunks, runs the teacher, commits each tar; counts as it goes."""

    store: Store
    session: TeacherSession
    batch_size: int
    progress: Progress
    sizes: Sequence[int | None]
    """Bytes of each tar, None where unknown."""
    committed: int = 0
    images: int = 0
    duplicates: int = 0
    """Members whose key the member before them had too."""
    num_bad: int = 0
    failed: dict[int, SoftLabelError] = field(default_factory=dict)
    bad: list[tuple[str, MemberRow]] = field(default_factory=list)
    """The first few members that could not be labelled, with their tar."""
    times: StageTimes = field(default_factory=StageTimes)
    statistics: LabelStatistics = field(init=False)

    def __post_init__(self) -> None:
        manifest = self.store.manifest
        self.statistics = LabelStatistics(
            manifest.temperatures, manifest.num_classes - manifest.top_k
        )
        self._amount = 0.0
        self._writing: Future[Any] | None = None

    def consume(self, items: Iterator[Item], stop: StopRequest, *, done: float = 0.0) -> None:
        """Label to the end of the stream, or to a request to stop; `done` of earlier runs."""
        start = time.perf_counter()
        self._amount = done
        with ThreadPoolExecutor(1, thread_name_prefix="writer") as writer:
            try:
                self._consume(items, stop, writer)
            finally:
                self._wait_for_writer()
        self.times.total += time.perf_counter() - start

    def _consume(
        self, items: Iterator[Item], stop: StopRequest, writer: ThreadPoolExecutor
    ) -> None:
        rows = TarRows(self.store.manifest)
        batcher = _Batcher(self.session, self.batch_size, self.times)
        while not stop.expired:
            start = time.perf_counter()
            item = next(items, None)
            self.times.wait_images += time.perf_counter() - start
            if item is None:
                return
            if isinstance(item, Chunk):
                rows.members += item.rows
                self.times.decode += item.busy_s
                batcher.add(item.pixels, rows)
                self.images += len(item.rows)
                self._show(item.tar, len(rows.members))
                continue
            if isinstance(item, TarEnd):
                batcher.flush(rows)
                self._hand_over(rows, item, writer)
            else:
                self._fail(item)
            rows = TarRows(self.store.manifest)
            batcher = _Batcher(self.session, self.batch_size, self.times)
            if stop.requested:
                return

    def _fail(self, item: TarFailed) -> None:
        self.failed[item.tar] = item.error
        self._amount += amount(self.sizes, [item.tar])
        self.progress.say(f"failed: {item.error}")

    def _hand_over(self, rows: TarRows, end: TarEnd, writer: ThreadPoolExecutor) -> None:
        start = time.perf_counter()
        self._wait_for_writer()
        self.times.wait_disk += time.perf_counter() - start
        self._writing = writer.submit(self._write, rows, end)

    def _wait_for_writer(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, rows: TarRows, end: TarEnd) -> None:
        start = time.thread_time()
        arrays = rows.finish()
        self.store.write(end.tar, arrays, tar_size=end.size, tar_sha256=end.sha256)
        self.times.write += time.thread_time() - start
        self.committed += 1
        self._amount += amount(self.sizes, [end.tar])
        self._note(rows, end.tar, arrays)

    def _note(self, rows: TarRows, tar: int, arrays: dict[str, NDArray[Any]]) -> None:
        ok = arrays["status"] == Status.OK
        self.statistics.add(arrays["topk_logit"][ok], arrays["tail_lse"][ok])
        keys = arrays["key_hash"]
        self.duplicates += int((keys[1:] == keys[:-1]).sum())
        self.num_bad += int((~ok).sum())
        for index in np.flatnonzero(~ok)[: max(0, _BAD_EXAMPLES - len(self.bad))]:
            status = Status(arrays["status"][index])
            self.bad.append((self.store.tars[tar], replace(rows.members[index], status=status)))

    def _show(self, tar: int, members: int) -> None:
        size = self.sizes[tar]
        within = min(1.0, members / self.store.manifest.rows_per_tar) * (size or 0)
        self.progress.update(
            self._amount + within,
            images=self.images,
            details={
                "bad images": self.num_bad,
                "failed tars": len(self.failed),
                "teacher waited for images": f"{self.times.wait_images:,.0f} s",
                "for disk": f"{self.times.wait_disk:,.0f} s",
            },
        )


def amount(sizes: Sequence[int | None], tars: Sequence[int]) -> float:
    """The work in some tars: bytes where sizes are known, else one a tar."""
    return float(sum(sizes[tar] or 1 for tar in tars))


def sample_pixels(items: Iterator[Item]) -> NDArray[np.uint8]:
    """The first few images of a stream, [n <= 64, H, W, 3]."""
    found: list[NDArray[np.uint8]] = []
    count = 0
    for item in items:
        if isinstance(item, Chunk) and len(item.pixels):
            found.append(item.pixels)
            count += len(item.pixels)
        if count >= _SAMPLE_VIEWS:
            break
    return np.concatenate(found)[:_SAMPLE_VIEWS] if found else np.zeros((0, 1, 1, 3), np.uint8)
