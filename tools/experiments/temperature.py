"""The temperature of blind distillation: T = 1, 2, 4, 8 on one foreign pool."""

from softlabel.tools.experiments.arms import all_runs, figure_table
from softlabel.tools.experiments.claims import Bound, Claim, Findings
from softlabel.tools.experiments.intervals import spread
from softlabel.tools.experiments.results import Results
from softlabel.tools.experiments.run import Run
from softlabel.tools.experiments.scope import Scope

_WARM, _COLD = "T = 4", "T = 1"


def arms(scope: Scope) -> dict[str, list[Run]]:
    """Students by temperature."""
    data = scope.data
    return {
        f"T = {temperature:g}": scope.runs(
            f"blind, {data.main} at T = {temperature:g}",
            scope.labels(data.main),
            {**data.training, "kd_temperature": temperature},
        )
        for temperature in data.temperatures
    }


def runs(scope: Scope) -> list[Run]:
    """All students."""
    return all_runs(arms(scope))


def findings(scope: Scope, results: Results) -> Findings:
    """Accuracy and fidelity by temperature."""
    found, students = Findings(), arms(scope)

    def make() -> Claim:
        differences = results.differences(students[_WARM], students[_COLD], "accuracy")
        return Claim(
            name="temperature",
            says="Students of T = 4 are right more often than students of T = 1.",
            source="our first measurement: 90.8 against 89.8 %",
            figure=spread(differences),
            unit="points",
            bound=Bound(relation=">", value=0.0),
            binding=False,  # one point, at a spread as large: nothing to insist on
        )

    if _WARM in students and _COLD in students:
        found.claim("temperature", make)
    title, figures = f"Temperature, students of {scope.data.main}", ("accuracy", "agreement")
    found.tables.append(
        figure_table(title, "trained at", students, results, (*figures, "kl", "ece"))
    )
    return found
