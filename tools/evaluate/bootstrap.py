"""Figures with their 95 % intervals, from resampling images.

A resample is a vector of counts, how often each image was drawn: whatever a figure is, it is
computed from weighted images, and all figures see the same resamples.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.evaluate.metrics import Floats

RESAMPLES = 1000
LEVEL = 0.95
_LEVELS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
_COUNTS_AT_ONCE = 1 << 20

Span = tuple[float, float]
SHARE: Span = (0.0, 1.0)
ANY: Span = (-np.inf, np.inf)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float
    n: int
    """Images that the value is of."""
    resamples: int = RESAMPLES
    interval_n: int | None = None
    """Images that the interval is of, where they are fewer than `n`."""

    def to_dict(self) -> dict[str, Any]:
        """As evaluation.json has it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


class Measure(Protocol):
    """What can be resampled: a figure of weighted images."""

    mirrored: ClassVar[bool]
    """Whether noise pushes the figure to one side, so that its interval must be mirrored."""
    span: ClassVar[Span]
    """The least and the largest value there can be."""

    @property
    def where(self) -> NDArray[np.bool_]:
        """[N] the images that count at all."""

    def over(self, counts: Floats) -> Floats:
        """[b, N] counts to [b] values; NaN where it is not defined."""


@dataclass(frozen=True)
class Mean:
    """The mean of `values` over the images in `where`; [N] both."""

    values: NDArray[np.float64] | NDArray[np.bool_]
    where: NDArray[np.bool_]
    mirrored: ClassVar[bool] = False
    span: ClassVar[Span] = ANY

    @cached_property
    def _columns(self) -> Floats:
        return np.stack([np.where(self.where, self.values, 0.0), self.where], 1).astype(np.float64)

    def over(self, counts: Floats) -> Floats:
        """[b, N] counts to [b] means; NaN for a resample without an image in `where`."""
        sums = counts @ self._columns
        return ratio(sums[:, 0], sums[:, 1])


def estimate(
    measures: Mapping[str, Measure],
    *,
    differences: Mapping[str, tuple[str, str]] | None = None,
    seed: int = 0,
) -> dict[str, Figure]:
    """Each measure's value over all images, and its interval; all see the same resamples.

    Args:
        measures: by name; one without an image in its `where`, or without a value, is left out.
        differences: name of a difference to the names of two measures of one kind, the first minus
            the second. Seeing the same resamples, two models' common luck cancels in it.
        seed: of the resamples.

    Returns:
        Figures by name of measure or difference.
    """
    known = {name: measure for name, measure in measures.items() if measure.where.any()}
    values, resampled = _resampled(known, seed)
    figures = {
        name: figure_of(
            values[name],
            resampled[name],
            n=int(known[name].where.sum()),
            mirrored=known[name].mirrored,
            span=known[name].span,
        )
        for name in values
    }
    for name, (a, b) in (differences or {}).items():
        if a in values and b in values:
            figures[name] = figure_of(
                values[a] - values[b],
                resampled[a] - resampled[b],
                n=figures[a].n,
                mirrored=known[a].mirrored,
            )
    return figures


def _resampled(
    measures: Mapping[str, Measure], seed: int
) -> tuple[dict[str, float], dict[str, Floats]]:
    """Value and resampled values [RESAMPLES] of each measure that has a value."""
    if not measures:
        return {}, {}
    num_images = len(next(iter(measures.values())).where)
    once = np.ones((1, num_images))
    values = {name: float(measure.over(once)[0]) for name, measure in measures.items()}
    values = {name: value for name, value in values.items() if np.isfinite(value)}
    parts: dict[str, list[Floats]] = {name: [] for name in values}
    for counts in resample_counts(num_images, seed=seed):
        for name, found in parts.items():
            found.append(measures[name].over(counts))
    return values, {name: np.concatenate(found) for name, found in parts.items()}


def figure_of(
    value: float,
    resampled: Floats,
    *,
    n: int,
    mirrored: bool = False,
    span: Span = ANY,
    interval_n: int | None = None,
) -> Figure:
    """A value with the percentiles of its resamples; [B], NaN where it had no value.

    Mirrored at the value, percentiles make the basic bootstrap, for figures that noise pushes to
    one side: a resample has that noise once more, and plain percentiles lie too far to that side.
    Such an interval is widened to hold the value, where it would not.
    """
    low, high = (float(level) for level in np.nanquantile(resampled, _LEVELS))
    if mirrored:
        low, high = min(2 * value - high, value), max(2 * value - low, value)
    return Figure(
        value=value,
        low=max(span[0], low),
        high=min(span[1], high),
        n=n,
        resamples=len(resampled),
        interval_n=interval_n,
    )


def resample_counts(
    num_images: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> Iterator[Floats]:
    """How often each image is drawn, [b, N] at a time, `resamples` rows in all."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _COUNTS_AT_ONCE // max(num_images, 1))
    for first in range(0, resamples, at_once):
        counts = np.empty((min(at_once, resamples - first), num_images))
        for row in counts:
            row[:] = np.bincount(rng.integers(num_images, size=num_images), minlength=num_images)
        yield counts


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotients; NaN where the denominator is not positive."""
    known = denominator > 0
    return np.where(known, numerator / np.where(known, denominator, 1.0), np.nan)
