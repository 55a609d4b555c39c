"""Sums over the labels of a tar or a source, which add up: of parts merged as of the whole."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.schema import Manifest
from softlabel.shards.statistics import LabelStatistics, effective_number
from softlabel.shards.status import Status
from softlabel.tools.stats.sample import Extremes, Sample, extremes
from softlabel.tools.stats.source import QUANTILES, Distribution, LabelFigures, SourceStatistics
from softlabel.tools.stats.values import TarValues, base_temperature, measures

_SHOWN_CLASSES = 10


class Sums:
    """`of_part` makes those of some rows of a tar; `merge` adds others."""

    def __init__(self, manifest: Manifest, *, capacity: int) -> None:
        self.manifest = manifest
        self.num_tars = 0
        self.targets = 0
        self.status = np.zeros(len(Status), np.int64)
        self.histogram = np.zeros(manifest.num_classes, np.int64)
        self.total = np.zeros(len(measures(manifest)))
        left_out = manifest.num_classes - manifest.top_k
        temperatures = dict.fromkeys((base_temperature(manifest), *manifest.temperatures))
        self.labels = {
            t: LabelStatistics(manifest.temperatures, left_out, at=t) for t in temperatures
        }
        self.sample = Sample(
            capacity, num_views=manifest.views, num_measures=len(measures(manifest))
        )
        self.extremes = Extremes()

    @classmethod
    def of_part(
        cls, manifest: Manifest, tar: int, values: TarValues, chosen: NDArray[np.bool_]
    ) -> "Sums":
        """Those of the members of a tar that are `chosen` [n]; its sample has them all."""
        own = chosen[values.place]
        sums = cls(manifest, capacity=max(int(own.sum()), 1))
        sums.num_tars = 1
        sums.targets = int(values.has_target[chosen].sum())
        sums.status += np.bincount(values.status[chosen], minlength=len(Status))
        first_class, found = values.first_class[own], values.values[own]
        sums.histogram += np.bincount(first_class, minlength=manifest.num_classes)
        sums.total += found.sum((0, 1))
        for t, labels in sums.labels.items():
            head = values.head[t][own].reshape(-1, manifest.top_k)
            labels.add_probabilities(head, values.tail[t][own].ravel())
        row = values.place[own]
        place = np.stack([np.full(len(row), tar), row])
        sums.sample.add(values.key_hash[own], place, found)
        sums.extremes = extremes(
            found[:, 0, 0],
            key_hash=values.key_hash[own],
            tar=tar,
            row=row,
            first_class=first_class,
            image_hash=values.image_hash[own],
        )
        return sums

    def merge(self, other: "Sums") -> None:
        """Add another's rows; its sample is no smaller than this one's."""
        self.num_tars += other.num_tars
        self.targets += other.targets
        self.status += other.status
        self.histogram += other.histogram
        self.total += other.total
        for t, labels in self.labels.items():
            labels.merge(other.labels[t])
        self.sample.merge(other.sample)
        self.extremes = self.extremes.merged(other.extremes)

    def figures(self, name: str, *, duplicates: int) -> LabelFigures:
        """As figures, those of a tar."""
        return LabelFigures(**self._figures(name), duplicates=duplicates)

    def statistics(
        self, name: str, *, duplicates: int, shared: int, duplicates_exact: bool
    ) -> SourceStatistics:
        """As figures, those of a source."""
        return SourceStatistics(
            **self._figures(name),
            duplicates=duplicates,
            num_tars=self.num_tars,
            class_histogram=self.histogram,
            shared=shared,
            duplicates_exact=duplicates_exact,
            sample=self.sample.values,
            extremes=self.extremes,
        )

    def _figures(self, name: str) -> dict[str, Any]:
        order = np.argsort(-self.histogram, kind="stable")[:_SHOWN_CLASSES]
        base = self.labels[base_temperature(self.manifest)]
        return {
            "name": name,
            "status": {
                status: int(self.status[status]) for status in Status if self.status[status]
            },
            "targets": self.targets,
            "labels": base.rows,
            "effective_classes": effective_number(self.histogram),
            "num_classes_seen": int(np.count_nonzero(self.histogram)),
            "most_frequent": tuple(
                (int(c), int(self.histogram[c])) for c in order if self.histogram[c]
            ),
            "saturated": base.saturated,
            "distributions": self._distributions(),
            "quantiles_exact": self.sample.is_whole,
            "wanted_top_k": {
                t: labels.wanted_top_k() for t, labels in self.labels.items() if labels.rows
            },
        }

    def _distributions(self) -> dict[str, Distribution]:
        found = self.sample.values
        if not len(found):
            return {}
        mean = self.total / self.labels[base_temperature(self.manifest)].rows
        quantiles = np.quantile(found, QUANTILES, axis=0)
        return {
            name: Distribution(mean=float(mean[m]), quantiles=tuple(map(float, quantiles[:, m])))
            for m, name in enumerate(measures(self.manifest))
        }
