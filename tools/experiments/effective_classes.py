"""What the mixed pool's labels say of its sources, without an image: effective classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from softlabel.shards.statistics import effective_number
from softlabel.shards.store import open_store
from softlabel.tools.experiments.claims import Bound, Claim, Findings, Table
from softlabel.tools.experiments.intervals import spread
from softlabel.tools.experiments.material import Labels
from softlabel.tools.experiments.results import MissingError, Results
from softlabel.tools.experiments.scope import Scope
from softlabel.tools.experiments.tasks import Result, Task


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Each source of a mixed pool: how its first classes are spread."""

    labels: Labels

    @property
    def data(self) -> str:
        """The data set's name."""
        return self.labels.data

    @property
    def title(self) -> str:
        """For the progress line."""
        return f"{self.data}: statistics of the mixed pool"

    @property
    def cost(self) -> float:
        """In steps of a digits student."""
        return 10.0

    def settings(self) -> Mapping[str, Any]:
        """What decides them."""
        return {"labels": self.labels.settings()}

    def needs(self) -> Sequence[Task]:
        """The labels."""
        return (self.labels,)

    def execute(self, folder: Path) -> Result:
        """Count first classes by source, which is the name of its tars."""
        store = open_store(self.labels.store(folder))
        counts: dict[str, Any] = {}
        for tar, name in enumerate(store.tars):
            source = Path(name).stem.rpartition("-")[0]
            first = store.read(tar, ("topk_class",))["topk_class"][:, 0, 0]
            found = np.bincount(first, minlength=store.manifest.num_classes)
            counts[source] = counts.get(source, 0) + found
        return {
            "sources": {
                source: {
                    "images": int(count.sum()),
                    "effective_classes": effective_number(count),
                    "largest_share": float(count.max() / count.sum()),
                }
                for source, count in counts.items()
            }
        }


def source_claims(scope: Scope, results: Results, task: Sources, found: Findings) -> None:
    """Effective classes fall from the most related source to the least, one claim a step."""
    for better, worse in pairwise(scope.data.mixture):
        name = f"mixed-classes-{better}-over-{worse}"

        def make(name: str = name, better: str = better, worse: str = worse) -> Claim:
            sources = results.of(task)["sources"]
            if not {better, worse} <= set(sources):
                raise MissingError(task.title)
            left, right = (sources[source]["effective_classes"] for source in (better, worse))
            return Claim(
                name=name,
                says=f"Effective classes rank the sources: {better} ({left:.1f}) above {worse} "
                f"({right:.1f}).",
                source="our first measurement: 8.7, 8.2, 5.5, 1.6",
                figure=spread([left - right]),
                unit="number",
                bound=Bound(relation=">", value=0.0),
                binding=scope.data.binding,
            )

        found.claim(name, make)


def source_table(results: Results, task: Sources) -> list[Table]:
    """The sources in a table; none without their statistics."""
    try:
        sources = results.of(task)["sources"]
    except MissingError:
        return []
    return [
        Table(
            title="Sources of the mixed pool, by their labels alone",
            head=("source", "images", "effective classes of 10", "largest class"),
            rows=[
                (
                    name,
                    f"{values['images']:,}",
                    f"{values['effective_classes']:.2f}",
                    f"{values['largest_share']:.0%}",
                )
                for name, values in sources.items()
            ],
        )
    ]
