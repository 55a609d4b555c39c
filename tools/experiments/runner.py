"""Do tasks side by side, each once: finished ones are found again, killed ones are done anew."""

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

from softlabel.shards.errors import MachineError
from softlabel.tools.experiments.tasks import Result, Task, finished, folder_of, keep

Say = Callable[[str], object]
Pool = Callable[[int], Executor]
_LOG = "log.txt"


class TaskError(Exception):
    """A task went wrong; its log has the traceback."""


@dataclass(kw_only=True)
class Outcome:
    """What came of the tasks."""

    results: dict[Task, Result] = field(default_factory=dict)
    skipped: dict[Task, str] = field(default_factory=dict)
    """Tasks for which something can't be had here, and why."""
    failed: dict[Task, str] = field(default_factory=dict)
    """Tasks that went wrong, and tasks that needed them."""
    seconds: float = 0.0
    """Sum over the tasks that were done now, each on its core."""


def processes(jobs: int) -> Executor:
    """Workers that share nothing; a `Pool`."""
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))


def do(
    tasks: Iterable[Task], folder: Path, *, jobs: int, say: Say = print, pool: Pool = processes
) -> Outcome:
    """Do the tasks and all that they need.

    Args:
        tasks: in the order of preference.
        folder: where everything goes, and where earlier results are.
        jobs: processes, with one thread of arithmetic each.
        say: told one line for each task that ended.
        pool: where they are done.
    """
    outcome = Outcome()
    waiting: dict[Task, None] = {}
    for task in tasks:
        _collect(task, folder, waiting, outcome.results)
    if outcome.results:
        say(f"{len(outcome.results)} results are there already")
    if waiting:
        _Campaign(folder, outcome, waiting, say).run(jobs, pool)
    return outcome


def _collect(
    task: Task, folder: Path, waiting: dict[Task, None], results: dict[Task, Result]
) -> None:
    """A task after those that it needs."""
    if task in waiting or task in results:
        return
    if (result := finished(task, folder)) is not None:
        results[task] = result
        return
    for needed in task.needs():
        _collect(needed, folder, waiting, results)
    waiting[task] = None


class _Campaign:
    """Tasks at work."""

    def __init__(self, folder: Path, outcome: Outcome, waiting: dict[Task, None], say: Say) -> None:
        self._folder = folder
        self._outcome = outcome
        self._waiting = waiting
        self._say = say
        self._total = len(waiting)
        self._cost = sum(task.cost for task in waiting)
        self._done_cost = 0.0
        self._done = 0
        self._start = time.monotonic()

    def run(self, jobs: int, make_pool: Pool) -> None:
        working: dict[Future[tuple[Result, float]], Task] = {}
        with _one_thread_each(), make_pool(jobs) as pool:
            while self._waiting or working:
                for task in self._ready(jobs - len(working)):
                    del self._waiting[task]
                    working[pool.submit(_perform, task, self._folder)] = task
                if not working:
                    assert not self._waiting, "tasks that need each other"
                    break
                for future in wait(working, return_when=FIRST_COMPLETED).done:
                    self._ended(working.pop(future), future)

    def _ready(self, count: int) -> list[Task]:
        """The next tasks that have all they need; those that never will are given up."""
        ready: list[Task] = []
        for task in list(self._waiting):
            if len(ready) == count:
                break
            for ended, what in (
                (self._outcome.skipped, "skipped"), (self._outcome.failed, "failed")
            ):  # fmt: skip
                without = next((ended[n] for n in task.needs() if n in ended), None)
                if without is not None:
                    del self._waiting[task]
                    ended[task] = without
                    self._count(task, f"{what}: {without}")
                    break
            else:
                if all(needed in self._outcome.results for needed in task.needs()):
                    ready.append(task)
        return ready

    def _ended(self, task: Task, future: "Future[tuple[Result, float]]") -> None:
        try:
            result, seconds = future.result()
        except MachineError as error:
            self._outcome.skipped[task] = str(error)
            self._count(task, f"SKIPPED: {error}")
        except TaskError as error:
            log = folder_of(task, self._folder) / _LOG
            self._outcome.failed[task] = str(error)
            self._count(task, f"FAILED: {error}; see {log}")
        else:
            self._outcome.results[task] = result
            self._outcome.seconds += seconds
            self._count(task, f"{seconds:.0f} s{_headline(result)}")

    def _count(self, task: Task, said: str) -> None:
        self._done += 1
        self._done_cost += task.cost
        passed = time.monotonic() - self._start
        left = passed / self._done_cost * (self._cost - self._done_cost)
        self._say(
            f"[{self._done:3d}/{self._total}] {task.title}: {said}; about {left / 60:.0f} min left"
        )


def _headline(result: Result) -> str:
    """The figures of a student that are worth a look on the way."""
    figures: Mapping[str, float] = result.get("figures", {}).get("student", {})
    known = (("accuracy", "{:.1%}"), ("agreement", "{:.1%}"), ("kl", "{:.3f}"))
    return "".join(f", {n} {f.format(figures[n])}" for n, f in known if n in figures)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are started meanwhile compute with one thread."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _perform(task: Task, folder: Path) -> tuple[Result, float]:
    """In a process of the pool: do the task, its lines into its log, and keep the result."""
    path = folder_of(task, folder)
    path.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with (path / _LOG).open("a", encoding="utf-8") as log, contextlib.redirect_stderr(log):
        try:
            result = task.execute(folder)
        except MachineError:
            traceback.print_exc()
            raise
        except Exception as error:
            traceback.print_exc()
            # Not every exception can travel between processes.
            raise TaskError(f"{type(error).__name__}: {error}") from None
    keep(task, folder, result)
    return result, time.monotonic() - start
