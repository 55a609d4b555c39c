"""Medians of interleaved repeats: what slows the machine down then slows every contestant."""

import time
from collections.abc import Callable, Mapping

import numpy as np


def interleaved(
    actions: Mapping[str, Callable[[], object]], *, repeats: int, warmups: int = 2
) -> dict[str, float]:
    """Median seconds of each action, all run once before any is run again."""
    for _ in range(warmups):
        for action in actions.values():
            action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(found)) for name, found in times.items()}
