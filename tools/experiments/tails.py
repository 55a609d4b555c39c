"""Tail rules: what the loss makes of classes that were not stored, at k = 2, 3, 5 of 10."""

from typing import Any

from softlabel.tools.experiments.arms import all_runs, figure_bars, figure_table
from softlabel.tools.experiments.claims import Bound, Claim, Findings
from softlabel.tools.experiments.intervals import spread
from softlabel.tools.experiments.results import Results
from softlabel.tools.experiments.run import Run
from softlabel.tools.experiments.scope import Scope

RULES = ("bucket", "renorm", "uniform")
STORED = (2, 3, 5)
FULL = "all classes"

_SOURCE = "our first measurement (0.254 against 0.249 nats; renorm 0.537 at k = 2, 0.358 at k = 3)"
_BUCKET_AT_MOST = 1.05
_RENORM_AT_LEAST = 1.30
_SHARE_OF_STEPS = 0.75
"""Of a blind run's: there are ten arms."""


def arm_name(rule: str, k: int) -> str:
    """The arm of a rule and a number of stored classes."""
    return f"{rule}, k = {k}"


def arms(scope: Scope) -> dict[str, list[Run]]:
    """Students by rule and stored classes."""
    data = scope.data
    steps = round(_SHARE_OF_STEPS * data.training["steps"])
    training: dict[str, Any] = {**data.training, "steps": steps}
    students = {FULL: scope.runs(f"tails, {FULL}", scope.labels(data.main), training)}
    for k in STORED:
        labels = scope.labels(data.main, top_k=k)
        for rule in RULES:
            name = arm_name(rule, k)
            students[name] = scope.runs(f"tails, {name}", labels, {**training, "tail": rule})
    return students


def runs(scope: Scope) -> list[Run]:
    """All students."""
    return all_runs(arms(scope))


def findings(scope: Scope, results: Results) -> Findings:
    """KL to the teacher's whole distribution, by rule."""
    found, students = Findings(), arms(scope)

    def claim(name: str, arm: str, to: str, bound: Bound, says: str) -> None:
        def make() -> Claim:
            return Claim(
                name=name,
                says=says,
                source=_SOURCE,
                figure=spread(results.ratios(students[arm], students[to], "kl")),
                unit="ratio",
                bound=bound,
                binding=scope.data.binding,
            )

        found.claim(name, make)

    claim(
        "tails-bucket", arm_name("bucket", 3), FULL,
        Bound(relation="<=", value=_BUCKET_AT_MOST),
        "Three stored classes and one bucket for the rest are as good as all: a KL at most 5 % "
        "higher.",
    )  # fmt: skip
    for k in (2, 3):
        claim(
            f"tails-renorm-{k}", arm_name("renorm", k), arm_name("bucket", k),
            Bound(relation=">=", value=_RENORM_AT_LEAST),
            f"Labels renormalised to their {k} stored classes are at least 30 % worse.",
        )  # fmt: skip
    title = f"Tail rules, students of {scope.data.main}"
    columns = ("kl", "agreement", "accuracy")
    found.tables.append(figure_table(title, "rule and stored classes", students, results, columns))
    found.bars.append(figure_bars(title, students, results, "kl"))
    return found
