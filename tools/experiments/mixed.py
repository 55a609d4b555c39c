"""Mixed pools with few related images: which sampling reaches the teacher in fewer steps.

After Begon and Geurts 2022 (arXiv 2201.06507), of which only the abstract was found: scores,
weights and bounds are our reconstruction's (trainer/sampling.py), measured on digits before.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from softlabel.tools.experiments.arms import Arms, all_runs
from softlabel.tools.experiments.claims import Bound, Claim, Curves, Findings, Table, shown
from softlabel.tools.experiments.effective_classes import Sources, source_claims, source_table
from softlabel.tools.experiments.intervals import spread
from softlabel.tools.experiments.results import MissingError, Results
from softlabel.tools.experiments.run import Run
from softlabel.tools.experiments.scope import Scope
from softlabel.tools.experiments.tasks import Task

UNIFORM, BALANCED, ANNEALED = "uniform", "balanced", "balanced, annealed"
_BETA = 3.0
_GOAL = 0.90
_SOURCE = "Begon & Geurts 2022 (abstract); bound: our first measurement"
_SHARE_OF_STEPS = 0.5
_WITHIN = -0.01
_EARLY = 0.25
"""Of the run: where confidence weighting was behind before (step 800 of 3,200)."""

_SHOWN = (100, 200, 400, 800, 1600, 3200)


def arms(scope: Scope) -> dict[str, list[Run]]:
    """Students by sampling."""
    ways: dict[str, Mapping[str, Any]] = {
        UNIFORM: {},
        BALANCED: {"sample": "balanced", "balance_gamma": 1.0, "balance_anneal": None},
        ANNEALED: {"sample": "balanced", "balance_gamma": 1.0, "balance_anneal": 0.5},
    }
    for score in scope.data.confidence:
        ways[_confident(score)] = {"confidence_beta": _BETA, "confidence_score": score}
    data, labels = scope.data, scope.mixture()
    return {
        name: scope.runs(
            f"mixed pool, {name}",
            labels,
            {**data.mixed_training, **way},
            measured_at=data.measured_at,
        )
        for name, way in ways.items()
    }


def _confident(score: str) -> str:
    return f"confidence by {score}"


def runs(scope: Scope) -> list[Task]:
    """All students, and the statistics of the pool."""
    return [*all_runs(arms(scope)), _sources(scope)]


def _sources(scope: Scope) -> Sources:
    return Sources(labels=scope.mixture())


def findings(scope: Scope, results: Results) -> Findings:
    """How fast each sampling gets there, and what the pool's statistics say."""
    found, students = Findings(), arms(scope)
    for name in (BALANCED, ANNEALED):
        _speed_claims(scope, results, students, found, name)
    for score in scope.data.confidence:
        _confidence_claim(scope, results, students, found, score)
    source_claims(scope, results, _sources(scope), found)
    found.tables.append(_curve_table(scope, results, students))
    found.tables += source_table(results, _sources(scope))
    series = {}
    for name, arm in students.items():
        try:
            series[name] = _mean_curve(results, arm)
        except MissingError:
            continue
    title = "Agreement with the teacher on test images, mixed pool"
    found.curves.append(Curves(title=title, label="agreement", series=series))
    return found


def _speed_claims(
    scope: Scope, results: Results, students: Arms, found: Findings, name: str
) -> None:
    key = "mixed-" + name.replace(", ", "-")

    def faster() -> Claim:
        own, uniform = results.curves(students[name]), results.curves(students[UNIFORM])
        return Claim(
            name=f"{key}-faster",
            says=f"Sampled {name}, students reach {_GOAL:.0%} agreement in at most half the steps "
            "of uniform.",
            source=_SOURCE,
            figure=spread([_step_ratio(a, b) for a, b in zip(own, uniform, strict=True)]),
            unit="ratio",
            bound=Bound(relation="<=", value=_SHARE_OF_STEPS),
            binding=scope.data.binding,
        )

    def as_good() -> Claim:
        return Claim(
            name=f"{key}-end",
            says=f"Sampled {name}, they end within 1 point of uniform or above.",
            source=_SOURCE,
            figure=spread(results.differences(students[name], students[UNIFORM], "agreement")),
            unit="points",
            bound=Bound(relation=">=", value=_WITHIN),
            binding=scope.data.binding,
        )

    found.claim(f"{key}-faster", faster)
    found.claim(f"{key}-end", as_good)


def _confidence_claim(
    scope: Scope, results: Results, students: Arms, found: Findings, score: str
) -> None:
    name = f"mixed-confidence-{score}"
    at = min(scope.data.measured_at, key=lambda step: abs(step - _EARLY * _last(scope)))
    step = scope.steps(at)

    def make() -> Claim:
        own = results.curves(students[_confident(score)])
        uniform = results.curves(students[UNIFORM])
        pairs = zip(own, uniform, strict=True)
        return Claim(
            name=name,
            says=f"Preferring images of which the teacher is sure, by {score}, slows students "
            f"down: behind uniform at step {step:,}.",
            source="our first measurement: at most 85.8 against 89.6 %",
            figure=spread([a[step] - b[step] for a, b in pairs]),
            unit="points",
            bound=Bound(relation="<", value=0.0),
            binding=scope.data.binding,
        )

    found.claim(name, make)


def _last(scope: Scope) -> int:
    return int(scope.data.mixed_training["steps"])


def steps_to(curve: Mapping[int, float], goal: float) -> float | None:
    """Steps to an agreement, between measured ones on a line over log steps; None if never."""
    before: tuple[int, float] | None = None
    for step, agreement in sorted(curve.items()):
        if agreement >= goal:
            if before is None:
                return float(step)
            share = (goal - before[1]) / (agreement - before[1])
            return math.exp(math.log(before[0]) + share * math.log(step / before[0]))
        before = step, agreement
    return None


def _step_ratio(own: Mapping[int, float], uniform: Mapping[int, float]) -> float:
    """Steps to the goal over those of uniform.

    A student that never gets there counts as one that does at its last step: that bounds the ratio
    from above where uniform's is late, and makes it at least 1 where its own is.
    """
    left, right = steps_to(own, _GOAL), steps_to(uniform, _GOAL)
    if left is None and right is None:
        raise MissingError(f"a student that reaches {_GOAL:.0%} agreement")
    return (left or max(own)) / (right or max(uniform))


def _mean_curve(results: Results, arm: Sequence[Run]) -> tuple[list[float], list[float]]:
    curves = results.curves(arm)
    steps = sorted(curves[0])
    return [float(step) for step in steps], [
        math.fsum(curve[step] for curve in curves) / len(curves) for step in steps
    ]


def _curve_table(scope: Scope, results: Results, students: Arms) -> Table:
    steps = [step for step in _SHOWN if step in scope.data.measured_at]
    rows = []
    for name, arm in students.items():
        try:
            curves = results.curves(arm)
        except MissingError:
            rows.append((name, "skipped", *[""] * (len(steps) - 1)))
            continue
        cells = [spread([curve[scope.steps(step)] for curve in curves]) for step in steps]
        rows.append((name, *(shown(cell, "share") for cell in cells)))
    head = ("sampling", *(f"step {step:,}" for step in steps))
    return Table(title="Agreement with the teacher, mixed pool", head=head, rows=rows)
