"""The page's parts on OOD detection, degraded and attacked pictures."""

from collections.abc import Iterator

import numpy as np

from softlabel.tools.evaluate.evaluation import Evaluation
from softlabel.tools.evaluate.groups import SCORE_TITLES
from softlabel.tools.evaluate.metrics import Floats
from softlabel.tools.evaluate.ood.detection import roc
from softlabel.tools.evaluate.ood.run import Ood
from softlabel.tools.evaluate.stress.degradations import Degradations
from softlabel.tools.evaluate.stress.degrade import SEVERITIES
from softlabel.tools.report.figures import Series, curves, histogram, roc_curves
from softlabel.tools.report.page import Markup, figure, paragraph, section, side_by_side

_CURVE_POINTS = 300
"""Of a ROC curve at most; a page needs no more."""


def part_sections(evaluation: Evaluation) -> list[Markup]:
    """Sections of the parts that were asked for and that have something to draw."""
    found = []
    if evaluation.ood is not None:
        found.append(section("Out of distribution", *_ood(evaluation, evaluation.ood)))
    degraded = None if evaluation.stress is None else evaluation.stress.degradations
    if degraded is not None and (drawings := list(_degraded(evaluation, degraded))):
        found.append(section("Degraded pictures", *drawings))
    return found


def _ood(evaluation: Evaluation, ood: Ood) -> Iterator[Markup]:
    yield paragraph(
        "A score is high for images of the collection (ID) and low for others (OOD), if a model "
        "tells them apart. Curves: of all thresholds, the share of ID images that pass over the "
        "share of others that do."
    )
    roles = [role for role in evaluation.roles if role in ood.scores]
    for score, title in SCORE_TITLES.items():
        shown = [role for role in roles if score in ood.scores[role]]
        if not shown:
            continue
        series = {role: _thinned(*roc(*ood.scores[role][score])) for role in shown}
        drawings = [figure(roc_curves(series), title)]
        for role in [role for role in shown if role != "control"]:
            own, others = ood.scores[role][score]
            both = np.concatenate([own, others])
            low, high = float(both.min()), float(both.max())
            drawing = histogram(
                {"ID": own, "OOD": others},
                label=f"{title} of the {role}",
                span=(low, high if high > low else low + 1.0),
            )
            drawings.append(figure(drawing, f"The {role}'s scores."))
        yield side_by_side(drawings)


def _thinned(false: Floats, true: Floats) -> Series:
    """Some points of a curve, both its ends among them."""
    count = min(len(false), _CURVE_POINTS)
    chosen = np.unique(np.linspace(0, len(false) - 1, count).round().astype(int))
    return false[chosen].tolist(), true[chosen].tolist()


def _degraded(evaluation: Evaluation, degraded: Degradations) -> Iterator[Markup]:
    roles = [role for role in evaluation.roles if role in degraded.figures]
    drawings = []
    for kind in degraded.kinds:
        panels: dict[str, dict[str, Series]] = {}
        for metric in ("accuracy", "agreement"):
            own = {role: degraded.curve(role, metric, kind) for role in roles}
            series: dict[str, Series] = {
                role: ([0, *SEVERITIES], [point.value for point in curve])
                for role, curve in own.items()
                if curve
            }
            if series:
                panels[metric] = series
        if panels:
            drawing = curves(panels, x_label="severity (0: clean)", percent=list(panels))
            drawings.append(figure(drawing, kind.replace("_", " ")))
    for first in range(0, len(drawings), 2):
        yield side_by_side(drawings[first : first + 2])
    if drawings:
        yield paragraph(
            f"{degraded.n:,} pictures. Agreement is with what the teacher says of the same "
            "degraded picture."
        )
