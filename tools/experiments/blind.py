"""Blind distillation: students that see no image of the teacher's classes (arXiv 1911.05275).

Menghani and Ravi's two procedures were found, their tables of results were not: bounds are those
of our own first measurement on digits.
"""

from itertools import pairwise

from softlabel.tools.experiments.arms import Arms, all_runs, figure_bars, figure_table
from softlabel.tools.experiments.claims import Bound, Claim, Findings
from softlabel.tools.experiments.intervals import spread
from softlabel.tools.experiments.results import MissingError, Results
from softlabel.tools.experiments.run import Run
from softlabel.tools.experiments.scope import Scope

MIXED = "all mixed"
SHUFFLED = "shuffled labels"

_SOURCE = "Menghani & Ravi 2019 (arXiv 1911.05275); bound: our first measurement"
_SHARE_OF_TEACHER = 0.80
_SHUFFLED_AT_MOST = 0.20


def arms(scope: Scope) -> dict[str, list[Run]]:
    """The students of each transfer set, by name, and those of shuffled labels."""
    data = scope.data
    labels = {pool: scope.labels(pool) for pool in data.foreign}
    if data.everything:
        labels[MIXED] = scope.labels(*data.everything)
    labels[SHUFFLED] = scope.labels(data.main, shuffled=True)
    return {
        name: scope.runs(f"blind, {name}", found, data.training) for name, found in labels.items()
    }


def runs(scope: Scope) -> list[Run]:
    """All students."""
    return all_runs(arms(scope))


def findings(scope: Scope, results: Results) -> Findings:
    """What they are worth, next to their teacher."""
    found, students = Findings(), arms(scope)
    found.claim("blind-main", lambda: _share_claim(scope, results, students))
    found.claim("blind-shuffled", lambda: _shuffled_claim(scope, results, students))
    # Beyond digits no order was measured before, only that images are worth more than noise.
    foreign = scope.data.foreign if scope.data.binding else (scope.data.main, "noise")
    for better, worse in pairwise(foreign):
        _order_claim(scope, results, students, found, better, worse)
    title, figures = "Students of foreign images", ("accuracy", "share of teacher", "agreement")
    note = _teacher_note(results, students[scope.data.main])
    found.tables.append(
        figure_table(title, "transfer set", students, results, (*figures, "kl"), note=note)
    )
    found.bars.append(figure_bars(title, students, results, "accuracy"))
    return found


def _share_claim(scope: Scope, results: Results, students: Arms) -> Claim:
    main = scope.data.main
    return Claim(
        name="blind-main",
        says=f"A student that saw {main} only keeps 80 % of its teacher's accuracy.",
        source=_SOURCE,
        figure=spread(results.shares_of_teacher(students[main])),
        unit="share",
        bound=Bound(relation=">=", value=_SHARE_OF_TEACHER),
        binding=scope.data.binding,
    )


def _shuffled_claim(scope: Scope, results: Results, students: Arms) -> Claim:
    return Claim(
        name="blind-shuffled",
        says="With the same labels on the wrong images it learns nothing (chance: 10 %).",
        source=_SOURCE,
        figure=spread(results.values(students[SHUFFLED], "accuracy")),
        unit="share",
        bound=Bound(relation="<=", value=_SHUFFLED_AT_MOST),
        binding=scope.data.binding,
    )


def _order_claim(
    scope: Scope, results: Results, students: Arms, found: Findings, better: str, worse: str
) -> None:
    name = f"blind-{better}-over-{worse}"

    def make() -> Claim:
        return Claim(
            name=name,
            says=f"Students of {better} are right more often than students of {worse}.",
            source=_SOURCE,
            figure=spread(results.differences(students[better], students[worse], "accuracy")),
            unit="points",
            bound=Bound(relation=">", value=0.0),
            binding=scope.data.binding,
        )

    found.claim(name, make)


def _teacher_note(results: Results, arm: list[Run]) -> str:
    try:
        accuracy = results.values(arm, "accuracy", role="teacher")[0]
    except MissingError:
        return ""
    return f"The teacher is right on {accuracy:.1%} of the test images."
