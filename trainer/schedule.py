"""The learning rate as a pure function of the step."""

import math
from dataclasses import dataclass
from typing import Literal

_ONECYCLE_RISE = 0.3
_ONECYCLE_START = 1 / 25
_ONECYCLE_END = 1e-4 / 25


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A rise to `peak`, then a fall over the rest of the steps.

    cosine: linear rise from 0, cosine fall to 0. constant: linear rise, no fall. onecycle: cosine
    rise from a 25th of the peak, cosine fall to a 10,000th of that (Smith and Topin 2017,
    arXiv:1708.07120, with torch's figures); momentum stays as it is.
    """

    kind: Literal["cosine", "onecycle", "constant"]
    peak: float
    num_steps: int
    warmup_steps: int

    def learning_rate(self, step: int) -> float:
        """For step 0, 1, ... num_steps - 1; positive at each."""
        if step < self.warmup_steps:
            return self.peak * self._rise((step + 1) / (self.warmup_steps + 1))
        if self.kind == "constant":
            return self.peak
        lowest = _ONECYCLE_END if self.kind == "onecycle" else 0.0
        share = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        return self.peak * _cosine(1.0, lowest, share)

    def _rise(self, share: float) -> float:
        return _cosine(_ONECYCLE_START, 1.0, share) if self.kind == "onecycle" else share


def make_schedule(
    kind: Literal["cosine", "onecycle", "constant"],
    *,
    peak: float,
    num_steps: int,
    warmup_steps: int | None,
) -> Schedule:
    """A schedule with its usual rise where none is asked for: none, or 30 % of a cycle."""
    if warmup_steps is None:
        warmup_steps = round(_ONECYCLE_RISE * num_steps) if kind == "onecycle" else 0
    return Schedule(kind=kind, peak=peak, num_steps=num_steps, warmup_steps=warmup_steps)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
