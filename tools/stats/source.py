"""What is known of the labels of one tar or one source."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.status import Status
from softlabel.tools.stats.sample import Extremes

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """Of one number over all labels: each view of each image counts."""

    mean: float
    quantiles: tuple[float, ...]
    """Those of `QUANTILES`, linear between neighbours as numpy.quantile."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelFigures:
    """The figures of a tar or a source. Classes are those of each image's first view."""

    name: str
    """The source, or the tar as the store has it."""
    status: Mapping[Status, int]
    """Rows by status, for the statuses that occur."""
    targets: int
    """Rows with a class of their own in the tar; it plays no part in any other figure."""
    labels: int
    """Labelled images times views."""
    effective_classes: float
    """exp(H) of the class histogram: `shards.statistics.effective_number`."""
    num_classes_seen: int
    most_frequent: tuple[tuple[int, int], ...]
    """Classes and their images, the most frequent first."""
    saturated: int
    """Labels with p1 > 0.999."""
    distributions: Mapping[str, Distribution]
    """By measure: p1, entropy, energy, tail at T. None of them where there is no label."""
    quantiles_exact: bool
    """Whether quantiles are of all images, else of a sample; means and counts always are of all."""
    wanted_top_k: Mapping[float, tuple[int, bool]]
    """By temperature the K that would bring the mean tail under 5 %, and whether that is exact."""
    duplicates: int
    """Images that equal an earlier one of the same tar or source, byte by byte."""

    @property
    def rows(self) -> int:
        """All members, labelled or not."""
        return sum(self.status.values())

    @property
    def labelled(self) -> int:
        """Images that have labels."""
        return self.status.get(Status.OK, 0)

    @property
    def bad(self) -> int:
        """Members that could not be labelled."""
        return self.rows - self.labelled

    @property
    def saturated_share(self) -> float:
        """Share of labels with p1 > 0.999."""
        return self.saturated / max(self.labels, 1)

    @property
    def duplicate_share(self) -> float:
        """Share of labelled images that equal an earlier one."""
        return self.duplicates / max(self.labelled, 1)

    def mean(self, measure: str) -> float | None:
        """The mean of a measure; None where there is no label."""
        found = self.distributions.get(measure)
        return None if found is None else found.mean


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceStatistics(LabelFigures):
    """What is known of a source."""

    num_tars: int
    """Tars that hold images of it."""
    class_histogram: NDArray[np.int64]
    """[C] labelled images by the class that the teacher says first of the first view."""
    shared: int
    """Images that equal one of another source, byte by byte."""
    duplicates_exact: bool
    """Whether `duplicates` and `shared` were counted, else estimated from a part of all hashes."""
    sample: Floats = field(repr=False)
    """[n, M] values of labels in the sample, columns as `values.measures` names them."""
    extremes: Extremes = field(repr=False)
    """Its most and least confident images."""

    @property
    def shared_share(self) -> float:
        """Share of labelled images that equal one of another source."""
        return self.shared / max(self.labelled, 1)
