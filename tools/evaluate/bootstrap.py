"""Figures with their 95 % intervals, from resampling images.

Every figure is a function of sums over images, so a resample is a vector of counts and all
resamples of all figures are one matrix product.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.evaluate.metrics import NUM_BINS, Floats, bin_of

RESAMPLES = 1000
_LEVELS = (0.025, 0.975)
_COUNTS_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of `values` over the images in `where`; [N] both."""

    values: NDArray[np.float64] | NDArray[np.bool_]
    where: NDArray[np.bool_]

    @property
    def columns(self) -> Floats:
        """[N, 2]"""
        return np.stack([np.where(self.where, self.values, 0.0), self.where], 1).astype(np.float64)

    def value(self, sums: Floats) -> Floats:
        """[B, 2] sums to [B] means; NaN for a resample without an image in `where`."""
        return _ratio(sums[:, 0], sums[:, 1])

    def interval(self, value: float, resampled: Floats) -> tuple[float, float]:
        """Percentiles of the resamples."""
        low, high = np.nanquantile(resampled, _LEVELS)
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class CalibrationError:
    """The expected calibration error of the images in `where`; [N] each."""

    confidence: Floats
    correct: NDArray[np.bool_]
    where: NDArray[np.bool_]

    @property
    def columns(self) -> Floats:
        """[N, NUM_BINS + 1]"""
        columns = np.zeros((len(self.where), NUM_BINS + 1))
        rows = np.arange(len(self.where))
        columns[rows, bin_of(self.confidence)] = np.where(
            self.where, self.confidence - self.correct, 0.0
        )
        columns[:, NUM_BINS] = self.where
        return columns

    def value(self, sums: Floats) -> Floats:
        """[B, NUM_BINS + 1] sums to [B] errors."""
        return _ratio(np.abs(sums[:, :NUM_BINS]).sum(1), sums[:, NUM_BINS])

    def interval(self, value: float, resampled: Floats) -> tuple[float, float]:
        """Percentiles mirrored at the estimate, the basic bootstrap.

        A sum of absolute values grows with noise, and a resample has that noise once more: plain
        percentiles lie too high. Where the truth was an error of 0.02 they held it 0, 12 and 85
        times of 100 for 500, 2,000 and 10,000 images; these did 90, 90 and 80 times. Where it was
        0 these held it every other time only: read the lower end as rough.
        """
        low, high = np.nanquantile(resampled, _LEVELS)
        return max(0.0, float(2 * value - high)), min(1.0, float(2 * value - low))


Measure = Mean | CalibrationError


def estimate(measures: Mapping[str, Measure], *, seed: int = 0) -> dict[str, Figure]:
    """Each measure's value over all images, and its interval; all see the same resamples.

    A measure without an image in its `where` is left out.
    """
    measures = {name: measure for name, measure in measures.items() if measure.where.any()}
    if not measures:
        return {}
    columns = [measure.columns for measure in measures.values()]
    edges = np.cumsum([part.shape[1] for part in columns])[:-1]
    joined = np.concatenate(columns, 1)
    sums = np.concatenate([counts @ joined for counts in _resamples(len(joined), seed)])
    figures = {}
    parts = zip(np.split(sums, edges, axis=1), columns, strict=True)
    for (name, measure), (resampled, own) in zip(measures.items(), parts, strict=True):
        value = float(measure.value(own.sum(0, keepdims=True))[0])
        low, high = measure.interval(value, measure.value(resampled))
        figures[name] = Figure(value=value, low=low, high=high)
    return figures


def _resamples(num_images: int, seed: int) -> Iterator[Floats]:
    """How often each image is drawn, [b, N] at a time, RESAMPLES rows in all."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _COUNTS_AT_ONCE // num_images)
    for first in range(0, RESAMPLES, at_once):
        counts = np.empty((min(at_once, RESAMPLES - first), num_images))
        for row in counts:
            row[:] = np.bincount(rng.integers(num_images, size=num_images), minlength=num_images)
        yield counts


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    known = denominator > 0
    return np.where(known, numerator / np.where(known, denominator, 1.0), np.nan)
