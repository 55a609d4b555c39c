"""The results of a campaign, asked by run: what an experiment makes its findings of."""

from collections.abc import Mapping, Sequence

from softlabel.tools.experiments.run import Run
from softlabel.tools.experiments.tasks import Result, Task


class MissingError(Exception):
    """A result that a finding needs is not there; says whose."""


class Results:
    """Results by task."""

    def __init__(self, found: Mapping[Task, Result]) -> None:
        self._found = found

    def of(self, task: Task) -> Result:
        """A task's result; MissingError without one."""
        if task not in self._found:
            raise MissingError(task.title)
        return self._found[task]

    def values(self, runs: Sequence[Run], figure: str, *, role: str = "student") -> list[float]:
        """kd-eval's figure of each run; MissingError if one lacks it."""
        found = []
        for run in runs:
            figures = self.of(run)["figures"].get(role, {})
            if figure not in figures:
                raise MissingError(f"{figure} of {run.title}")
            found.append(float(figures[figure]))
        return found

    def curves(self, runs: Sequence[Run]) -> list[dict[int, float]]:
        """Agreement by step, of each run."""
        return [{int(step): float(y) for step, y in self.of(run)["curve"]} for run in runs]

    def differences(self, left: Sequence[Run], right: Sequence[Run], figure: str) -> list[float]:
        """Left minus right, seed by seed."""
        pairs = zip(self.values(left, figure), self.values(right, figure), strict=True)
        return [a - b for a, b in pairs]

    def ratios(self, left: Sequence[Run], right: Sequence[Run], figure: str) -> list[float]:
        """Left over right, seed by seed."""
        pairs = zip(self.values(left, figure), self.values(right, figure), strict=True)
        return [a / b for a, b in pairs]

    def shares_of_teacher(self, runs: Sequence[Run]) -> list[float]:
        """Accuracy over the judge's accuracy, of each run."""
        teacher = self.values(runs, "accuracy", role="teacher")
        return [a / b for a, b in zip(self.values(runs, "accuracy"), teacher, strict=True)]
