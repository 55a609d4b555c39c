"""Which figures an evaluation has, of whom, and from which images."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from softlabel.tools.evaluate.answers import SHOWN_CLASSES, Answers, Asked, Images
from softlabel.tools.evaluate.bootstrap import Figure, Mean, Measure, estimate
from softlabel.tools.evaluate.embeddings import similarity_figures
from softlabel.tools.evaluate.measures import CalibrationError, Slope, WorstClasses
from softlabel.tools.evaluate.metrics import hits

FEWEST_CLASSES_FOR_TOP5 = 20
"""With fewer, a target among the first five says little."""

WORST_SHARE = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantity:
    """A figure as people read it."""

    title: str
    unit: Literal["share", "number"]
    meaning: str


GROUPS: dict[str, dict[str, Quantity]] = {
    "Fidelity": {
        "agreement": Quantity(
            title="agreement with the teacher",
            unit="share",
            meaning="share of images whose first class is the teacher's",
        ),
        "top5_overlap": Quantity(
            title="top-5 overlap",
            unit="share",
            meaning="mean share of its first five classes that are among the teacher's first five",
        ),
        "kl": Quantity(
            title="KL(teacher || model), nats",
            unit="number",
            meaning="mean of KL(teacher || model) at temperature 1, in nats; 0 is a copy",
        ),
        "tv": Quantity(
            title="total variation distance",
            unit="number",
            meaning="mean of half the sum over classes of |p - q|; 0 is a copy, 1 is disjoint",
        ),
        "conf_slope": Quantity(
            title="slope of confidence (log-odds)",
            unit="number",
            meaning="least squares slope, over images, of the model's log-odds of the teacher's "
            "first class on the teacher's own: 1 is the same confidence, more exaggerates it "
            "(Nagarajan et al. 2023)",
        ),
        "cka": Quantity(
            title="linear CKA of embeddings",
            unit="number",
            meaning="centred kernel alignment of the model's penultimate features with the "
            "teacher's embeddings; 1 is the same arrangement of images",
        ),
        "cosine_correlation": Quantity(
            title="correlation of cosines",
            unit="number",
            meaning="Pearson's correlation, over pairs of images, of their features' cosine with "
            "their teacher embeddings' cosine",
        ),
        "confidence": Quantity(
            title="mean confidence",
            unit="share",
            meaning="mean probability of the predicted class",
        ),
    },
    "Generalisation": {
        "accuracy": Quantity(
            title="top-1 accuracy", unit="share", meaning="share of images predicted as the target"
        ),
        "accuracy_top5": Quantity(
            title="top-5 accuracy",
            unit="share",
            meaning="share of images whose target is among the first five classes",
        ),
        "nll": Quantity(
            title="NLL of the target, nats",
            unit="number",
            meaning="mean of -log of the target's probability",
        ),
        "brier": Quantity(
            title="Brier score",
            unit="number",
            meaning="mean of the sum over classes of (p - y)^2, y being 1 for the target: 0 to 2",
        ),
        "ece": Quantity(
            title="calibration error (ECE)",
            unit="share",
            meaning="how far confidence and accuracy are apart, on average over 15 bins of equal "
            "width of confidence",
        ),
        "ece_adaptive": Quantity(
            title="calibration error, equal-mass bins",
            unit="share",
            meaning="the same over 15 bins of as many images each",
        ),
        "worst_class_accuracy": Quantity(
            title="accuracy of the worst class",
            unit="share",
            meaning="the lowest accuracy of any class that has a target",
        ),
        "worst_decile_accuracy": Quantity(
            title="accuracy of the worst tenth of classes",
            unit="share",
            meaning="mean accuracy of the tenth of classes with the lowest",
        ),
    },
}


def figures_of(
    asked: Asked, num_classes: int
) -> tuple[dict[str, dict[str, Figure]], dict[str, Figure]]:
    """All figures by role, and student minus control by name of figure.

    One resampling serves all, so that differences between roles are not noise of it.
    """
    measures: dict[str, Measure] = {}
    for role, found in asked.answers.items():
        teacher = None if role == "teacher" else asked.answers["teacher"]
        own = _generalisation(asked.images, found, num_classes) | _fidelity(
            found, teacher, num_classes
        )
        measures |= {f"{role} {name}": measure for name, measure in own.items()}
    names = {name: (f"student {name}", f"control {name}") for group in GROUPS.values()
             for name in group}  # fmt: skip
    estimated = estimate(measures, differences={f"difference {n}": p for n, p in names.items()})
    figures: dict[str, dict[str, Figure]] = {role: {} for role in (*asked.answers, "difference")}
    for key, figure in estimated.items():
        role, _, name = key.partition(" ")
        figures[role][name] = figure
    differences = figures.pop("difference")
    similar, similar_differences = similarity_figures(asked.embeddings)
    for role, more in similar.items():
        figures[role] |= more
    return figures, differences | similar_differences


def _fidelity(found: Answers, teacher: Answers | None, num_classes: int) -> dict[str, Measure]:
    every = np.ones(len(found.classes), bool)
    measures: dict[str, Measure] = {"confidence": Mean(found.confidence, every)}
    if teacher is None:
        return measures
    return measures | {
        "agreement": Mean(found.first == teacher.first, every),
        # Of five classes the first five are always the same.
        "top5_overlap": Mean(
            found.overlap, ~np.isnan(found.overlap) & (num_classes > SHOWN_CLASSES)
        ),
        "kl": Mean(found.kl, every),
        "tv": Mean(found.tv, every),
        "conf_slope": Slope(teacher.log_odds, found.log_odds, every),
    }


def _generalisation(images: Images, found: Answers, num_classes: int) -> dict[str, Measure]:
    known = images.target >= 0
    correct = found.first == images.target
    measures: dict[str, Measure] = {
        "accuracy": Mean(correct, known),
        "nll": Mean(found.nll, known & ~np.isnan(found.nll)),
        "brier": Mean(found.brier, known & ~np.isnan(found.brier)),
        "ece": CalibrationError(found.confidence, correct, known),
        "ece_adaptive": CalibrationError(found.confidence, correct, known, equal_mass=True),
        "worst_class_accuracy": WorstClasses(images.target, correct, known),
    }
    if len(np.unique(images.target[known])) * WORST_SHARE > 1:
        measures["worst_decile_accuracy"] = WorstClasses(
            images.target, correct, known, share=WORST_SHARE
        )
    if num_classes >= FEWEST_CLASSES_FOR_TOP5 and found.classes.shape[1] == SHOWN_CLASSES:
        measures["accuracy_top5"] = Mean(hits(found.classes, images.target), known)
    return measures
