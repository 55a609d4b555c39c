"""For whom and how long: a data set, the seeds and the length of runs, and the runs made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softlabel.tools.experiments.data_sets import DataSet
from softlabel.tools.experiments.material import ALL_CLASSES, Labels
from softlabel.tools.experiments.run import Run


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What an experiment is done on."""

    data: DataSet
    seeds: int
    scale: float = 1.0
    """Of all numbers of steps."""

    def labels(
        self,
        *pools: str,
        teacher: str | None = None,
        top_k: int = ALL_CLASSES,
        shuffled: bool = False,
    ) -> Labels:
        """Labels of whole pools, by the data set's teacher unless told."""
        return Labels(
            data=self.data.name,
            teacher=teacher or self.data.teacher,
            pools=tuple((pool, None) for pool in pools),
            top_k=top_k,
            shuffled=shuffled,
        )

    def mixture(self) -> Labels:
        """Labels of the mixed pool."""
        return Labels(
            data=self.data.name,
            teacher=self.data.teacher,
            pools=tuple(self.data.mixture.items()),
        )

    def steps(self, count: int) -> int:
        """A number of steps, scaled."""
        return max(1, round(count * self.scale))

    def runs(
        self,
        title: str,
        labels: Labels,
        training: Mapping[str, Any],
        *,
        judge: str | None = None,
        measured_at: Sequence[int] = (),
        init: Sequence[Run] | None = None,
    ) -> list[Run]:
        """A student a seed.

        Args:
            title: of the arm.
            labels: to learn from.
            training: TrainConfig's fields; `student` is the data set's unless given.
            judge: the teacher to be compared with, unless that of the labels.
            measured_at: steps, scaled like those of training.
            init: the students to go on with, one a seed.
        """
        options = {"student": self.data.student, **training, "steps": self.steps(training["steps"])}
        return [
            Run(
                title=f"{self.data.name}: {title}, seed {seed}",
                labels=labels,
                training=tuple(sorted(options.items())),
                seed=seed,
                judge=judge or labels.teacher,
                measured_at=tuple(sorted({self.steps(step) for step in measured_at})),
                init=None if init is None else init[seed],
            )
            for seed in range(self.seeds)
        ]
