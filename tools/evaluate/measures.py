"""Measures that are more than a mean: calibration errors, a slope, the worst classes.

N images, each [N] array in the order of the evaluation; `where` says which images count.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.evaluate.bootstrap import ANY, SHARE, Span, ratio
from softlabel.tools.evaluate.metrics import NUM_BINS, Floats, bin_of, equal_mass_bin_of


@dataclass(frozen=True)
class CalibrationError:
    """The expected calibration error: how far confidence and accuracy are apart in a bin.

    Its noise is a sum of absolute values, which grows with it: plain percentiles of resamples lie
    too high. Where the truth was an error of 0.02 they held it 0, 12 and 85 times of 100 for 500,
    2,000 and 10,000 images; mirrored they did 90, 90 and 80 times. Where it was 0 these held it
    every other time only: read the lower end as rough.
    """

    confidence: Floats
    correct: NDArray[np.bool_]
    where: NDArray[np.bool_]
    equal_mass: bool = False
    """Bins of as many images each (adaptive) instead of bins of equal width. They are set once, for
    all images: a resample keeps them."""
    mirrored: ClassVar[bool] = True
    span: ClassVar[Span] = SHARE

    @cached_property
    def _columns(self) -> Floats:
        """[N, NUM_BINS + 1]"""
        columns = np.zeros((len(self.where), NUM_BINS + 1))
        rows = np.flatnonzero(self.where)
        sure = self.confidence[rows]
        bins = equal_mass_bin_of(sure) if self.equal_mass else bin_of(sure)
        columns[rows, bins] = sure - self.correct[rows]
        columns[rows, NUM_BINS] = 1.0
        return columns

    def over(self, counts: Floats) -> Floats:
        """[b, N] counts to [b] errors."""
        sums = counts @ self._columns
        return ratio(np.abs(sums[:, :NUM_BINS]).sum(1), sums[:, NUM_BINS])


@dataclass(frozen=True)
class Slope:
    """The least squares slope of `y` on `x`, a constant included."""

    x: Floats
    y: Floats
    where: NDArray[np.bool_]
    mirrored: ClassVar[bool] = False
    span: ClassVar[Span] = ANY

    @cached_property
    def _columns(self) -> Floats:
        """[N, 5]: 1, x, y, xx and xy, about the means, so that no difference is of large sums."""
        x, y = (np.where(self.where, v, 0.0) for v in (self.x, self.y))
        x, y = (np.where(self.where, v - v[self.where].mean(), 0.0) for v in (x, y))
        return np.stack([self.where.astype(np.float64), x, y, x * x, x * y], 1)

    def over(self, counts: Floats) -> Floats:
        """[b, N] counts to [b] slopes; NaN where all x are one."""
        n, x, y, xx, xy = (counts @ self._columns).T
        spread = n * xx - x * x
        # Of one x only rounding is left.
        known = np.where(spread > 1e-12 * np.maximum(n * xx, 1e-300), spread, 0.0)
        return ratio(n * xy - x * y, known)


@dataclass(frozen=True)
class WorstClasses:
    """The mean accuracy of those classes that have the lowest one.

    The lowest of many noisy accuracies lies below the lowest true one, hence the mirrored interval;
    with few images a class it is rough all the same.
    """

    target: NDArray[np.int64]
    correct: NDArray[np.bool_]
    where: NDArray[np.bool_]
    share: float = 0.0
    """Of the classes that have an image, rounded up; at least one class."""
    mirrored: ClassVar[bool] = True
    span: ClassVar[Span] = SHARE

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        """Images in `where`, those of a class together."""
        rows = np.flatnonzero(self.where)
        return rows[np.argsort(self.target[rows], kind="stable")]

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Where each class begins in that order."""
        target = self.target[self._order]
        return np.flatnonzero(np.concatenate([[True], target[1:] != target[:-1]]))

    def over(self, counts: Floats) -> Floats:
        """[b, N] counts to [b] accuracies, over the classes that a resample has."""
        drawn = counts[:, self._order]
        total = np.add.reduceat(drawn, self._starts, axis=1)
        right = np.add.reduceat(drawn * self.correct[self._order], self._starts, axis=1)
        accuracy = np.sort(ratio(right, total), axis=1)  # NaN comes last
        wanted = np.maximum(1, np.ceil(self.share * (total > 0).sum(1)))
        chosen = np.arange(accuracy.shape[1]) < wanted[:, None]
        found = np.where(chosen, accuracy, 0.0).sum(1) / wanted
        return np.where((total > 0).any(1), found, np.nan)
