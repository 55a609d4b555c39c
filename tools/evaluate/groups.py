"""All figures of an evaluation in groups of rows: its own, then OOD, degradation, attacks."""

from collections.abc import Mapping

from softlabel.tools.evaluate.bootstrap import Figure
from softlabel.tools.evaluate.evaluation import Evaluation
from softlabel.tools.evaluate.ood.run import Ood
from softlabel.tools.evaluate.quantities import GROUPS
from softlabel.tools.evaluate.rows import Group, Row, Unit, row
from softlabel.tools.evaluate.stress.adversarial import Adversarial
from softlabel.tools.evaluate.stress.attacks import Attack
from softlabel.tools.evaluate.stress.degradations import ALL, Degradations

SCORE_TITLES = {
    "max_softmax": "max-softmax",
    "energy": "energy",
    "max_logit": "max-logit",
    "knn": "nearest neighbour (cosine)",
}
_METRICS: dict[str, tuple[str, Unit]] = {
    "auroc": ("AUROC", "number"),
    "fpr95": ("FPR at 95 % TPR", "share"),
    "aupr": ("AUPR (ID positive)", "number"),
}
_UNATTACKED = {
    "accuracy_clean": "accuracy, clean",
    "accuracy_noise": "accuracy, noise",
    "agreement_clean": "agreement with the teacher, clean",
    "agreement_noise": "agreement with the teacher, noise",
    "fooled_noise": "fooled by noise",
    "transfer_noise": "teacher fooled by noise",
}
"""Equal for all attacks of one eps."""
_ATTACKED = {
    "accuracy": "accuracy",
    "agreement": "agreement with the teacher",
    "fooled": "fooled",
    "transfer": "teacher fooled (transfer)",
    "transfer_excess": "teacher fooled, less noise",
}
_OOD_MEANING = [
    (
        "OOD scores",
        "max-softmax (Hendrycks and Gimpel 2017), energy (log-sum-exp of the logits, Liu et al. "
        "2020), max-logit (Hendrycks et al. 2022), cosine to the nearest image of the collection "
        "(Sun et al. 2022); each model has its own",
    ),
    (
        "OOD metrics",
        "AUROC: how often an image of the collection scores above another one; FPR at 95 % TPR: "
        "share of others above the score that 95 % of the collection reach, lower is better; AUPR "
        "with the collection as the positive class",
    ),
]
_DEGRADED_MEANING = [
    (
        "degraded pictures",
        "accuracy by target, and agreement with what the teacher says of the same degraded "
        "picture; relative: the mean over kinds and severities over the value on clean pictures",
    )
]
_ATTACKED_MEANING = [
    (
        "attacks",
        "each student, whose column it is, is attacked itself; noise is uniform, of the same "
        "largest change; fooled: of the pictures that a model answered with their class before, "
        "the share that it does not after; a picture's class is its target, or without one the "
        "teacher's label",
    ),
    (
        "transfer",
        "of the pictures that the teacher answered with their class before, the share that it does "
        "not after, on pictures made against the student",
    ),
]


def groups(evaluation: Evaluation) -> list[Group]:
    """Those that have figures, in order."""
    found = [_own(evaluation, title) for title in GROUPS]
    if evaluation.ood is not None:
        found.append(_ood(evaluation, evaluation.ood))
    if evaluation.stress is not None:
        if evaluation.stress.degradations is not None:
            found.append(_degraded(evaluation, evaluation.stress.degradations))
        if evaluation.stress.adversarial is not None:
            found.append(_attacked(evaluation, evaluation.stress.adversarial))
    return [group for group in found if group.rows]


def _own(evaluation: Evaluation, title: str) -> Group:
    rows: list[Row] = []
    meanings = []
    for name, quantity in GROUPS[title].items():
        bound = " (lower bound)" if name in evaluation.lower_bounds else ""
        found = list(
            row(
                evaluation,
                quantity.title + bound,
                _named(evaluation.figures, name),
                unit=quantity.unit,
                difference=evaluation.differences.get(name),
            )
        )
        if found:
            rows += found
            meanings.append((quantity.title, quantity.meaning))
    return Group(title=title, detail="", rows=rows, meanings=meanings)


def _ood(evaluation: Evaluation, ood: Ood) -> Group:
    rows: list[Row] = []
    for score, title in SCORE_TITLES.items():
        for metric, (metric_title, unit) in _METRICS.items():
            name = f"{score}/{metric}"
            rows += row(
                evaluation,
                f"{title}: {metric_title}",
                _named(ood.figures, name),
                unit=unit,
                difference=ood.differences.get(name),
            )
    first = next(iter(ood.scores["student"].values()))
    detail = f"{len(first[0]):,} images of the collection, {len(first[1]):,} others"
    return Group(title="OOD", detail=detail, rows=rows, meanings=_OOD_MEANING)


def _degraded(evaluation: Evaluation, found: Degradations) -> Group:
    rows: list[Row] = []
    kinds = {kind: kind.replace("_", " ") for kind in found.kinds}
    for metric in ("accuracy", "agreement"):
        names = {f"{metric}/clean": f"{metric}, clean"}
        names |= {f"{metric}/{kind}/mean": f"{metric}, {title}" for kind, title in kinds.items()}
        if len(kinds) > 1:
            names[f"{metric}/{ALL}/mean"] = f"{metric}, mean of all"
        names[f"{metric}/{ALL}/relative"] = f"{metric}, mean relative to clean"
        for name, title in names.items():
            rows += row(
                evaluation,
                title,
                _named(found.figures, name),
                unit="share",
                difference=found.differences.get(name),
            )
    detail = f"{found.n:,} images at {found.size[0]} x {found.size[1]}, means over severities 1-5"
    return Group(title="Degradation", detail=detail, rows=rows, meanings=_DEGRADED_MEANING)


def _attacked(evaluation: Evaluation, found: Adversarial) -> Group:
    first = found.attacks[0].kind
    names = {f"{first}/{name}": title for name, title in _UNATTACKED.items()}
    for attack in found.attacks:
        names |= {f"{attack.kind}/{n}": f"{attack.kind}: {title}" for n, title in _ATTACKED.items()}
    rows: list[Row] = []
    for name, title in names.items():
        rows += row(
            evaluation,
            title,
            _named(found.figures, name),
            unit="share",
            difference=found.differences.get(name),
        )
    settings = "; ".join(map(_settings, found.attacks))
    return Group(
        title="Adversarial",
        detail=f"{found.n:,} images; {settings}",
        rows=rows,
        meanings=_ATTACKED_MEANING,
    )


def _settings(attack: Attack) -> str:
    """eps and step in pixel values of 0 to 255."""
    said = f"{attack.kind} eps {255 * attack.eps:.3g}/255"
    if attack.kind == "fgsm":
        return said
    return (
        f"{said}, step {255 * attack.step_size:.3g}/255, {attack.steps} steps, "
        f"{attack.restarts} start{'s' if attack.restarts > 1 else ''}"
    )


def _named(figures: Mapping[str, Mapping[str, Figure]], name: str) -> dict[str, Figure | None]:
    return {role: own.get(name) for role, own in figures.items()}
