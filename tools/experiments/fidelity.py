"""Whose student is it? A student of the teacher beside one of another teacher (Stanton 2021)."""

from softlabel.tools.experiments.arms import all_runs, figure_bars, figure_table
from softlabel.tools.experiments.claims import Bound, Claim, Findings
from softlabel.tools.experiments.intervals import spread
from softlabel.tools.experiments.results import Results
from softlabel.tools.experiments.run import Run
from softlabel.tools.experiments.scope import Scope

OWN, CONTROL = "student of the teacher", "control: student of another"
TEACHERS = ("own", "other")
"""The data set's names of two teachers that share no training image."""

_SOURCE = "Stanton et al. 2021 (the control); bound: our first measurement (0.49x)"
_AT_MOST = 0.7


def arms(scope: Scope) -> dict[str, list[Run]]:
    """Both students of each seed, judged by the first teacher."""
    return {
        name: scope.runs(
            name, scope.labels("train", teacher=teacher), scope.data.training, judge=TEACHERS[0]
        )
        for name, teacher in zip((OWN, CONTROL), TEACHERS, strict=True)
    }


def runs(scope: Scope) -> list[Run]:
    """All students; none where there are no two teachers."""
    return all_runs(arms(scope)) if set(TEACHERS) <= set(scope.data.teachers) else []


def findings(scope: Scope, results: Results) -> Findings:
    """KL tells the two apart, agreement hardly does."""
    found = Findings()
    if not runs(scope):
        return found
    students = arms(scope)
    found.claim("fidelity-kl", lambda: _kl_claim(scope, results, students))
    found.claim("fidelity-agreement", lambda: _agreement_claim(scope, results, students))
    title, figures = "Fidelity to one teacher of 200 images", ("agreement", "kl", "tv")
    note = (
        "Two teachers, each trained on 200 images the other never saw; students of both see all "
        "1,000. Slope: of the student's log-odds over the teacher's."
    )
    columns = (*figures, "conf_slope", "accuracy")
    found.tables.append(figure_table(title, "student", students, results, columns, note=note))
    found.bars.append(figure_bars(title, students, results, "kl"))
    return found


def _kl_claim(scope: Scope, results: Results, students: dict[str, list[Run]]) -> Claim:
    return Claim(
        name="fidelity-kl",
        says="A student is nearer to its own teacher than a student of another one: its KL is at "
        "most 0.7 of the control's.",
        source=_SOURCE,
        figure=spread(results.ratios(students[OWN], students[CONTROL], "kl")),
        unit="ratio",
        bound=Bound(relation="<=", value=_AT_MOST),
        binding=scope.data.binding,
    )


def _agreement_claim(scope: Scope, results: Results, students: dict[str, list[Run]]) -> Claim:
    return Claim(
        name="fidelity-agreement",
        says="Agreement tells the two apart less clearly; the own student's lead in it.",
        source="our first measurement: 1.2 pt",
        figure=spread(results.differences(students[OWN], students[CONTROL], "agreement")),
        unit="points",
        bound=None,
        binding=scope.data.binding,
    )
