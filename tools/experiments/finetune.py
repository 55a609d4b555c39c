"""Phase two of blind distillation: ten images a class of the teacher's own kind, no labels."""

from typing import Any

from softlabel.tools.experiments import blind
from softlabel.tools.experiments.arms import all_runs, figure_bars, figure_table
from softlabel.tools.experiments.claims import Bound, Claim, Findings
from softlabel.tools.experiments.intervals import spread
from softlabel.tools.experiments.results import Results
from softlabel.tools.experiments.run import Run
from softlabel.tools.experiments.scope import Scope

BLIND, BOTH, ALONE = "blind only", "blind, then 10 a class", "the 10 a class only"
_POOL = "ten"
_SOURCE = "Menghani & Ravi 2019, second procedure; bound: our first measurement"
_GAIN = 0.04
_SHARE_OF_STEPS = 0.25
"""Of the blind phase's steps: those of phase two."""

_SHARE_OF_RATE = 0.1
"""Of the blind phase's learning rate, as the procedure asks for a much lower one."""


def arms(scope: Scope) -> dict[str, list[Run]]:
    """The blind student, what phase two makes of it, and the same images without a blind phase."""
    data = scope.data
    steps = round(data.training["steps"] * _SHARE_OF_STEPS)
    second: dict[str, Any] = {
        **data.training,
        "steps": steps,
        "lr": data.training["lr"] * _SHARE_OF_RATE,
        "sched": "cosine",
    }
    # The student without a blind phase has as many steps in all.
    alone = {**data.training, "steps": data.training["steps"] + steps}
    first = blind.arms(scope)[data.main]
    ten = scope.labels(_POOL)
    return {
        BLIND: first,
        BOTH: scope.runs(BOTH, ten, second, init=first),
        ALONE: scope.runs(ALONE, ten, alone),
    }


def runs(scope: Scope) -> list[Run]:
    """All students."""
    return all_runs(arms(scope))


def findings(scope: Scope, results: Results) -> Findings:
    """What the hundred images are worth, with and without the blind phase."""
    found, students = Findings(), arms(scope)

    def claim(name: str, before: str, bound: Bound, says: str) -> None:
        def make() -> Claim:
            return Claim(
                name=name,
                says=says,
                source=_SOURCE,
                figure=spread(results.differences(students[BOTH], students[before], "accuracy")),
                unit="points",
                bound=bound,
                binding=scope.data.binding,
            )

        found.claim(name, make)

    claim(
        "finetune-gain", BLIND, Bound(relation=">=", value=_GAIN),
        "Ten unlabelled images a class after the blind phase add 4 points.",
    )  # fmt: skip
    claim(
        "finetune-over-alone", ALONE, Bound(relation=">=", value=0.0),
        "The blind phase is worth it: the same images without it give no better student.",
    )  # fmt: skip
    title = f"Phase two after {scope.data.main}"
    found.tables.append(
        figure_table(title, "student", students, results, ("accuracy", "agreement", "kl"))
    )
    found.bars.append(figure_bars(title, students, results, "accuracy"))
    return found
