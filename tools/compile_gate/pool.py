"""Compilations in a few processes: an assertion in the compiler ends one, and names its variant."""

import multiprocessing
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from softlabel.tools.compile_gate.report import Report, Specialization

_SECONDS = 180.0
"""The longest that one variant may take."""

_LONGEST = 300
"""Characters of a compiler's message."""

# A child begins with torch, triton and the kernels imported, and with all variants at hand.
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A shipped configuration for an architecture and the dtype of its logits."""

    arch: int
    dtype: str
    name: str
    spec: Specialization


Outcome = Report | str
"""A report, or in one line why there is none."""


class _Worker:
    """A process that compiles the variants whose numbers it is sent."""

    def __init__(self, variants: Sequence[Variant]) -> None:
        self._errors = tempfile.NamedTemporaryFile(prefix="compile-gate-")  # noqa: SIM115
        self.here, there = _FORK.Pipe()
        given = (there, variants, self._errors.fileno())
        self._process = _FORK.Process(target=_serve, args=given, daemon=True)
        self._process.start()
        there.close()
        self.current = -1

    def start(self, number: int) -> None:
        self.current = number
        self.here.send(number)

    def outcome(self, *, overdue: bool) -> Outcome:
        """Of the current variant; if the process hangs or is gone, that is its outcome."""
        if overdue:
            return f"took longer than {_SECONDS:.0f} s"
        try:
            found: Outcome = self.here.recv()
            return found
        except (EOFError, ConnectionResetError):
            self._process.join()
            return f"the compiler died (exit code {self._process.exitcode}): {self._last_words()}"

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.here.close()
        self._errors.close()

    def _last_words(self) -> str:
        """The failed assertion, if there is one: a dump of the whole module may follow it."""
        text = Path(self._errors.name).read_text(errors="replace")
        lines = text.strip().splitlines() or ["no message"]
        return next((line for line in lines if "ssertion" in line), lines[-1])[:_LONGEST]


def _serve(there: Connection, variants: Sequence[Variant], errors: int) -> None:
    from softlabel.tools.compile_gate.compile import compile_one

    os.dup2(errors, 2)
    while True:
        variant = variants[there.recv()]
        outcome: Outcome
        try:
            outcome = compile_one(variant.spec, variant.arch)
        except Exception as error:
            outcome = f"{type(error).__name__}: {' '.join(str(error).split())[-_LONGEST:]}"
        there.send(outcome)


def compile_all(variants: Sequence[Variant], *, jobs: int) -> Iterator[tuple[Variant, Outcome]]:
    """Every variant with its outcome, in the order given, each as soon as its turn has come."""
    from softlabel.tools.compile_gate.compile import prepare

    prepare()
    waiting = iter(range(len(variants)))
    found: dict[int, Outcome] = {}
    busy: dict[Any, _Worker] = {}

    def give(worker: _Worker) -> None:
        number = next(waiting, None)
        if number is None:
            worker.stop()
        else:
            worker.start(number)
            busy[worker.here] = worker

    try:
        for _ in range(min(jobs, len(variants))):
            give(_Worker(variants))
        for number, variant in enumerate(variants):
            while number not in found:
                ready = wait(list(busy), timeout=_SECONDS)
                for here in ready or list(busy):
                    worker = busy.pop(here)
                    outcome = worker.outcome(overdue=not ready)
                    found[worker.current] = outcome
                    if isinstance(outcome, str):
                        worker.stop()
                        worker = _Worker(variants)
                    give(worker)
            yield variant, found.pop(number)
    finally:
        for worker in busy.values():
            worker.stop()
