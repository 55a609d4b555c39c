"""One pass over a store: the statistics of its sources and of its tars."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.errors import UsageError
from softlabel.shards.schema import Manifest
from softlabel.shards.sources import (
    MOST_SOURCES,
    NAMELESS,
    SourceBy,
    refuse_unmatched,
    tar_sources,
)
from softlabel.shards.store import Store
from softlabel.tools.stats.duplicates import Duplicates
from softlabel.tools.stats.source import LabelFigures, SourceStatistics
from softlabel.tools.stats.sums import Sums
from softlabel.tools.stats.values import NEEDED, measures, tar_values

EXACT_IMAGES = 50_000
"""Images of a source up to which its quantiles are exact; of more, those of so many."""

FEWEST_IMAGES = 100
"""What is left of that where there are very many sources or views."""

_SAMPLED_NUMBERS = 1 << 24
"""Numbers in the samples of all sources together: 128 MiB."""

BY_NAME = SourceBy(kind="name")
EVERYTHING = "all"


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What one pass found."""

    manifest: Manifest
    by: SourceBy
    sources: Sequence[SourceStatistics]
    """The most effective classes first."""
    tars: Sequence[LabelFigures]
    """Each labelled tar, in the store's order; duplicates are those within the tar."""
    whole: SourceStatistics
    """All sources together; its duplicates equal an earlier image of whatever source."""


def source_statistics(
    store: Store, *, by: SourceBy = BY_NAME, urls: Mapping[int, str] | None = None
) -> list[SourceStatistics]:
    """The labels of each source of a store, from the store alone, the most effective classes first.

    A source in which the teacher sees many classes about equally often tends to be related to its
    own; its confidence does not tell, noise can have the highest. So sources are ranked by
    `effective_classes`. That ranking is our reconstruction, after the class-balanced transfer sets
    of Nayak et al. (WACV 2021): Begon and Geurts (arXiv 2201.06507) was known by its abstract only.

    Args:
        store: read tar by tar, once; memory does not grow with it, but for a record a tar.
        by: what makes a source; `key` and `json` need the tars.
        urls: tar ordinal to where it lies now.

    Raises:
        UsageError: a path pattern matches no tar, a tar must be read and is not in `urls` or has
            other members, or there are more than `MOST_SOURCES` sources.
        TarError: a tar that must be read is damaged.
        StoreError: the store is.
    """
    return list(collect(store, by=by, urls=urls).sources)


def collect(
    store: Store,
    *,
    by: SourceBy = BY_NAME,
    urls: Mapping[int, str] | None = None,
    only: Container[int] | None = None,
) -> Collection:
    """`source_statistics`, with those of each tar and of the whole; or of `only` some tars."""
    refuse_unmatched(by, store.tars)
    tars = [tar for tar in store.commits() if only is None or tar in only]
    return _Pass(store, by, urls or {}).run(tars)


class _Pass:
    def __init__(self, store: Store, by: SourceBy, urls: Mapping[int, str]) -> None:
        self._store = store
        self._by = by
        self._urls = urls
        self._numbers: dict[str, int] = {}
        self._sums: list[Sums] = []
        self._duplicates = Duplicates()
        self._tars: list[LabelFigures] = []

    def run(self, tars: Sequence[int]) -> Collection:
        for tar in tars:
            self._add(tar)
        if set(self._numbers) == {NAMELESS}:
            raise UsageError(f"--source-by {self._by}: matches no image of {len(tars)} tar(s)")
        within, shared = (
            count(len(self._sums)) for count in (self._duplicates.within, self._duplicates.shared)
        )
        exact = self._duplicates.factor == 1
        sources = [
            self._sums[number].statistics(
                name,
                duplicates=int(within[number]),
                shared=int(shared[number]),
                duplicates_exact=exact,
            )
            for name, number in self._numbers.items()
        ]
        manifest = self._store.manifest
        whole = Sums(manifest, capacity=_capacity(manifest, len(self._sums)))
        for sums in self._sums:
            whole.merge(sums)
        whole.num_tars = len(self._tars)
        return Collection(
            manifest=manifest,
            by=self._by,
            sources=sorted(sources, key=lambda s: (-s.effective_classes, s.name)),
            tars=self._tars,
            whole=whole.statistics(
                EVERYTHING,
                duplicates=self._duplicates.total(),
                shared=0,
                duplicates_exact=exact,
            ),
        )

    def _add(self, tar: int) -> None:
        manifest, name = self._store.manifest, self._store.tars[tar]
        values = tar_values(self._store.read(tar, NEEDED), manifest)
        num_members = len(values.status)
        found = tar_sources(self._by, name, url=self._urls.get(tar), num_members=num_members)
        numbers = np.array([self._number(source) for source in found.names], np.int32)
        everybody = np.ones(num_members, np.bool_)
        whole = Sums.of_part(manifest, tar, values, everybody)
        for code, number in enumerate(numbers):
            part = whole
            if len(numbers) > 1:
                part = Sums.of_part(manifest, tar, values, found.code == code)
            self._sums[number].merge(part)
        self._duplicates.add(values.image_hash, _of(numbers, found.code[values.place]))
        copies = len(values.image_hash) - len(np.unique(values.image_hash))
        self._tars.append(whole.figures(name, duplicates=copies))

    def _number(self, source: str) -> int:
        if source not in self._numbers:
            if len(self._numbers) == MOST_SOURCES:
                raise UsageError(
                    f"--source-by {self._by}: makes more than {MOST_SOURCES:,} sources, the last "
                    f"is {source!r}; make the pattern coarser"
                )
            self._numbers[source] = len(self._numbers)
            manifest = self._store.manifest
            capacity = _capacity(manifest, len(self._numbers))
            self._sums.append(Sums(manifest, capacity=capacity))
            for sums in self._sums:
                sums.sample.shrink(capacity)
        return self._numbers[source]


def _capacity(manifest: Manifest, num_sources: int) -> int:
    """Images in the sample of a source, so that all samples together stay small."""
    numbers = max(num_sources, 1) * manifest.views * len(measures(manifest))
    return min(EXACT_IMAGES, max(FEWEST_IMAGES, _SAMPLED_NUMBERS // numbers))


def _of(numbers: NDArray[np.int32], code: NDArray[np.int32]) -> NDArray[np.int32]:
    return numbers[code] if len(numbers) else np.zeros(0, np.int32)
