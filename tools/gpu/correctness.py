"""Every form of the kernel against float64, then what must hold beyond that. Red: exit code 1.

Cases run in several processes, because each compiles a kernel of its own.
"""

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any

from softlabel.tools.gpu.cases import Given, cases, check
from softlabel.tools.gpu.properties import PROPERTIES
from softlabel.tools.gpu.step import Step, UnmeasuredError, described, in_processes, parsed

_PROCESSES = 6
_PROPERTIES_S = 50
"""Kept back for the properties, which come after the cases."""


def main() -> None:
    """The step."""
    step = parsed("softlabel.tools.gpu.correctness", __doc__)
    found = correctness(step)
    step.write(found)
    for name, reason in found["red"].items():
        print(f"RED {name}: {reason}")
    print(
        f"correctness: {found['green']} green, {len(found['red'])} red, "
        f"{len(found['unmeasured'])} unmeasured; seed {found['seed']}, "
        f"{found['seconds']} s, largest share of the error budget {found['largest_share']}"
    )
    sys.exit(1 if found["red"] else 0)


def correctness(step: Step) -> dict[str, Any]:
    """Names of what is red with the reason, and of what could not be measured."""
    start = time.monotonic()
    device = "cpu" if step.dry_run else "cuda"
    # Fresh inputs every time; the number makes a red case again.
    seed = int.from_bytes(os.urandom(3), "little")
    red: dict[str, str] = {}
    unmeasured: dict[str, str] = {}
    shares: dict[str, dict[str, float]] = {}
    for name, answer in _answers(step, device, seed):
        if isinstance(answer, Exception):
            red[name] = described(answer)
        else:
            shares[name] = {part: round(share, 3) for part, share in answer.items()}
    green = len(shares)
    for name, prove in PROPERTIES.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                prove(device)
        except UnmeasuredError as reason:
            unmeasured[name] = str(reason)
        except Exception as error:
            red[name] = described(error)
        else:
            green += 1
    return {
        "dry_run": step.dry_run,
        "seed": seed,
        "green": green,
        "red": red,
        "unmeasured": unmeasured,
        "seconds": round(time.monotonic() - start, 1),
        "largest_share": max((max(s.values()) for s in shares.values()), default=None),
        "error_budget_shares": shares,
    }


def _answers(step: Step, device: str, seed: int) -> Iterator[tuple[str, Any]]:
    """The name of each case, with its shares of the error budget or the exception it raised."""
    jobs = {case.name: (case, device, seed) for case in cases(tiny=step.dry_run)}
    if device == "cuda":
        yield from in_processes(
            _answer, jobs, processes=_PROCESSES, deadline=step.deadline - _PROPERTIES_S
        )
        return
    for name, job in jobs.items():
        try:
            yield name, _answer(*job)
        except Exception as error:
            yield name, error


def _answer(case: Given, device: str, seed: int) -> dict[str, float]:
    with _quiet_numpy(device):
        return check(case, device, seed=seed)


@contextlib.contextmanager
def _quiet_numpy(device: str) -> Iterator[None]:
    """The interpreter computes lanes that are masked away, and numpy warns of them."""
    if device != "cpu":
        yield
        return
    import numpy as np

    with np.errstate(all="ignore"):
        yield


if __name__ == "__main__":
    main()
