"""Seconds of contestants that take turns: what slows the machine down slows every one of them.

On a GPU the time is that between two CUDA events, and 256 MB are read before each run, so that
nothing it needs is in the cache and nothing it does not is waiting to be written back. On a CPU it
is `perf_counter`.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

FLUSH_BYTES = 256 << 20
WARMUPS = 2

METHODS = {
    "cpu": "perf_counter; logits copied afresh before each run; contestants take turns",
    "cuda": "CUDA events; logits copied afresh and 256 MB read before each run (cold L2); "
    "contestants take turns",
}


@dataclass(frozen=True)
class Times:
    """Seconds of one contestant, a value a repeat."""

    seconds: list[float] = field(default_factory=list)
    host: list[float] = field(default_factory=list)
    """On a GPU: until the call returned, the work having only just begun. On a CPU: the processor's
    own seconds, which other programs' turns are no part of."""

    def quantile(self, q: float) -> float:
        return float(np.quantile(self.seconds, q))

    @property
    def median(self) -> float:
        return self.quantile(0.5)

    @property
    def host_median(self) -> float:
        return float(np.median(self.host))


def take_turns(
    actions: Mapping[str, Callable[[], Any]],
    *,
    prepare: Callable[[], None],
    device: torch.device,
    repeats: int,
    warmups: int = WARMUPS,
) -> dict[str, Times]:
    """Times of each action, all run once before any is run again; `prepare` is not timed.

    Who follows whom changes from round to round: a neighbour's leavings in the cache and in the
    allocator would else always fall to the same one.
    """
    for _ in range(warmups):
        for action in actions.values():
            prepare()
            action()
    found = {name: Times() for name in actions}
    one_round = _cuda_round if device.type == "cuda" else _cpu_round
    flush = Flush(device)
    order = list(actions)
    for number in range(repeats):
        random.Random(number).shuffle(order)
        one_round({name: actions[name] for name in order}, prepare, flush, found)
    return found


class Flush:
    """Fills a GPU's cache with lines that nobody needs and nobody wrote; nothing on a CPU."""

    def __init__(self, device: torch.device) -> None:
        size = FLUSH_BYTES // 4 if device.type == "cuda" else 0
        self._buffer = torch.ones(size, device=device)
        self._sum = torch.empty((), device=device)

    def __call__(self) -> None:
        if len(self._buffer):
            torch.sum(self._buffer, dim=0, out=self._sum)


def _cpu_round(
    actions: Mapping[str, Callable[[], Any]],
    prepare: Callable[[], None],
    flush: Flush,
    found: dict[str, Times],
) -> None:
    for name, action in actions.items():
        prepare()
        worked = time.process_time()
        start = time.perf_counter()
        action()
        found[name].seconds.append(time.perf_counter() - start)
        found[name].host.append(time.process_time() - worked)


def _cuda_round(
    actions: Mapping[str, Callable[[], Any]],
    prepare: Callable[[], None],
    flush: Flush,
    found: dict[str, Times],
) -> None:
    """The flush keeps the GPU busy while the host gets ahead: its delays are not in the events."""
    events = {}
    for name, action in actions.items():
        begin = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        prepare()
        flush()
        begin.record()
        start = time.perf_counter()
        action()
        found[name].host.append(time.perf_counter() - start)
        end.record()
        events[name] = begin, end
    torch.cuda.synchronize()
    for name, (begin, end) in events.items():
        found[name].seconds.append(begin.elapsed_time(end) / 1e3)
