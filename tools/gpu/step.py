"""What the steps of the suite share: their flags, their clock, their JSON."""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


class UnmeasuredError(RuntimeError):
    """Something that this machine cannot tell, and why."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """How a step was called."""

    out: Path
    dry_run: bool
    deadline: float
    """On `time.monotonic`."""

    @property
    def left_s(self) -> float:
        return self.deadline - time.monotonic()

    def write(self, found: Mapping[str, Any]) -> None:
        """Write the figures so far; a step that is stopped leaves what it last wrote."""
        self.out.write_text(json.dumps(found, indent=1) + "\n")


def parsed(prog: str, description: str | None, argv: Sequence[str] | None = None) -> Step:
    """A step's flags.

    Raises:
        SystemExit: there is no GPU and this is no dry run.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", description=description)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--dry-run", action="store_true", help="tiny shapes on the CPU, in triton's interpreter"
    )
    parser.add_argument(
        "--seconds", type=float, default=120.0, help="leave out what would start later than this"
    )
    given = parser.parse_args(argv)
    if not given.dry_run and not torch.cuda.is_available():
        parser.error("torch finds no GPU; --dry-run works without")
    return Step(out=given.out, dry_run=given.dry_run, deadline=time.monotonic() + given.seconds)


def in_processes(
    work: Callable[..., Any],
    jobs: Mapping[str, tuple[Any, ...]],
    *,
    processes: int,
    deadline: float,
) -> Iterator[tuple[str, Any]]:
    """(name, what `work` returned for the job) in the order of `jobs`.

    In place of a result there is the exception that it raised; TimeoutError for a job that was not
    done by `deadline`, its process having died among other reasons. No process is left behind.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit CUDA, and break it
    with spawn.Pool(min(processes, max(1, len(jobs)))) as pool:
        waiting = {name: pool.apply_async(work, arguments) for name, arguments in jobs.items()}
        for name, answer in waiting.items():
            try:
                yield name, answer.get(timeout=max(0.1, deadline - time.monotonic()))
            except multiprocessing.TimeoutError:
                yield name, TimeoutError("no answer in time")
            except Exception as error:
                yield name, error


def described(error: BaseException) -> str:
    """An exception in a line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def architecture() -> int:
    """80, 90, 100, ... of the GPU; 90 without one."""
    if not torch.cuda.is_available():
        return 90
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor
