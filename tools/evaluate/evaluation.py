"""The result of an evaluation: every figure, and what each model said of each image."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.specs import redacted
from softlabel.tools.evaluate.answers import Answers, Images
from softlabel.tools.evaluate.bootstrap import (
    RESAMPLES,
    CalibrationError,
    Figure,
    Mean,
    Measure,
    estimate,
)
from softlabel.tools.evaluate.metrics import (
    ByClass,
    Reliability,
    by_class,
    hits,
    reliability,
)
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.teacher_labels import TEMPERATURE, Labelled

FORMAT = 1
FEWEST_CLASSES_FOR_TOP5 = 20
_TOP5 = 5


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A student beside its teacher and perhaps a control; all by role: student, teacher, control.

    Per-image arrays are [N], in the order of `images`.
    """

    models: Sequence[Model]
    """The student, then the control if there is one."""
    labelled: Labelled
    images: Images
    answers: Mapping[str, Answers]
    figures: Mapping[str, Mapping[str, Figure]]
    """By role, then `accuracy`, `accuracy_top5`, `agreement`, `kl`, `ece`, `confidence`; those that
    can't be had (no targets, too few classes) are missing."""
    reliability: Mapping[str, Reliability]
    """By role; empty without targets."""
    agreement_by_class: Mapping[str, ByClass]
    """By role: the agreement with the teacher, by the teacher's class."""
    accuracy_by_class: Mapping[str, ByClass]
    """By role: the accuracy, by target; empty without targets."""
    notes: Sequence[str]
    """What a reader of the figures must know."""

    @property
    def roles(self) -> list[str]:
        """Who is compared, in the order of columns."""
        return ["student", "teacher", *(m.role for m in self.models if m.role != "student")]

    @property
    def num_classes(self) -> int:
        """C"""
        return self.labelled.store.manifest.num_classes

    @property
    def class_names(self) -> list[str]:
        """Names of all classes; their numbers where nobody named them."""
        names = self.labelled.store.manifest.class_names or self.models[0].described.class_names
        return list(names) if names else [str(number) for number in range(self.num_classes)]

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """[N] whether the student's first class is the teacher's."""
        same: NDArray[np.bool_] = self.answers["student"].first == self.answers["teacher"].first
        return same

    def to_dict(self) -> dict[str, Any]:
        """evaluation.json; equal runs give equal content."""
        manifest = self.labelled.store.manifest
        return {
            "format": FORMAT,
            "images": {
                "evaluated": len(self.images.target),
                "with_target": int((self.images.target >= 0).sum()),
                "left_out": self.labelled.left_out,
            },
            "figures": {
                role: {name: asdict(figure) for name, figure in figures.items()}
                for role, figures in self.figures.items()
            },
            "models": {model.role: _model_facts(model) for model in self.models},
            "teacher": {
                "sha256": manifest.teacher_sha256,
                "store": str(self.labelled.store.path),
                "store_id": self.labelled.store.store_id,
                "top_k": manifest.top_k,
                "num_classes": manifest.num_classes,
                "view_recipe": manifest.view_recipe,
                "recipe": manifest.recipe,
            },
            "tars": [redacted(url) for url in self.labelled.urls.values()],
            "temperature": TEMPERATURE,
            "interval": {"level": 0.95, "resamples": RESAMPLES},
            "reliability": {role: _lists(bins) for role, bins in self.reliability.items()},
            "classes": self.class_names,
            "agreement_by_class": _by_class_lists(self.agreement_by_class),
            "accuracy_by_class": _by_class_lists(self.accuracy_by_class),
            "notes": list(self.notes),
        }


def sum_up(
    models: Sequence[Model], labelled: Labelled, images: Images, answers: Mapping[str, Answers]
) -> Evaluation:
    """All figures of the answers."""
    num_classes = labelled.store.manifest.num_classes
    images, notes = _known_targets(images, num_classes)
    known = images.target >= 0
    target = images.target[known]
    teacher = answers["teacher"].first
    students = {role: found for role, found in answers.items() if role != "teacher"}
    return Evaluation(
        models=models,
        labelled=labelled,
        images=images,
        answers=answers,
        figures=_figures(images, answers, num_classes),
        reliability={
            role: reliability(found.confidence[known], found.first[known] == target)
            for role, found in answers.items()
            if known.any()
        },
        agreement_by_class={
            role: by_class(teacher, found.first == teacher, num_classes)
            for role, found in students.items()
        },
        accuracy_by_class={
            role: by_class(target, found.first[known] == target, num_classes)
            for role, found in answers.items()
            if known.any()
        },
        notes=[*_label_notes(labelled), *_training_notes(models, labelled), *notes],
    )


def _figures(
    images: Images, answers: Mapping[str, Answers], num_classes: int
) -> dict[str, dict[str, Figure]]:
    """By role; one resampling serves all, so that differences between roles are not noise of it."""
    measures: dict[str, Measure] = {}
    for role, found in answers.items():
        teacher = None if role == "teacher" else answers["teacher"]
        own = _measures(images, found, teacher, num_classes)
        measures |= {f"{role} {name}": measure for name, measure in own.items()}
    figures: dict[str, dict[str, Figure]] = {role: {} for role in answers}
    for key, figure in estimate(measures).items():
        role, _, name = key.partition(" ")
        figures[role][name] = figure
    return figures


def _measures(
    images: Images, found: Answers, teacher: Answers | None, num_classes: int
) -> dict[str, Measure]:
    known = images.target >= 0
    every = np.ones_like(known)
    correct = found.first == images.target
    measures: dict[str, Measure] = {"accuracy": Mean(correct, known)}
    if num_classes >= FEWEST_CLASSES_FOR_TOP5 and found.classes.shape[1] == _TOP5:
        measures["accuracy_top5"] = Mean(hits(found.classes, images.target), known)
    if teacher is not None:
        measures["agreement"] = Mean(found.first == teacher.first, every)
        measures["kl"] = Mean(found.kl, every)
    measures["ece"] = CalibrationError(found.confidence, correct, known)
    measures["confidence"] = Mean(found.confidence, every)
    return measures


def _known_targets(images: Images, num_classes: int) -> tuple[Images, list[str]]:
    """Targets, unless they are of another list of classes than the teacher's."""
    if not len(images.target) or images.target.max() < num_classes:
        return images, []
    note = (
        f"the tars' targets go up to class {int(images.target.max())}, the teacher has "
        f"{num_classes} classes: they count differently, so accuracy and calibration are left out"
    )
    unknown = np.full_like(images.target, -1)
    return Images(tar=images.tar, member=images.member, target=unknown), [note]


def _label_notes(labelled: Labelled) -> list[str]:
    manifest, notes = labelled.store.manifest, []
    if manifest.view_recipe != "center":
        notes.append(
            f"the teacher was asked about view 0 of recipe {manifest.view_recipe}, another crop "
            "than the centre view that the students see: agreement and KL suffer from that too"
        )
    if manifest.top_k < manifest.num_classes:
        notes.append(
            f"KL takes the {manifest.num_classes - manifest.top_k} classes beyond the teacher's "
            f"stored {manifest.top_k} as one, which makes it a lower bound"
        )
    if left_out := labelled.left_out:
        said = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in left_out.items())
        notes.append(f"left out: {said}")
    return notes


def _training_notes(models: Sequence[Model], labelled: Labelled) -> list[str]:
    manifest, notes = labelled.store.manifest, []
    for model in models:
        training = model.described.training
        # Stores of other tars, made alike, have the same id; with fewer tars it can't be that one.
        tars = int(training.get("tars", 0))
        if training.get("store_id") == labelled.store.store_id and tars <= len(labelled.store.tars):
            notes.append(
                f"the {model.role} was trained on labels of this very store: it may have seen "
                "these images"
            )
        taught_by = training.get("teacher_sha256", manifest.teacher_sha256)
        if taught_by != manifest.teacher_sha256:
            notes.append(
                f"the {model.role} was trained on labels of another teacher, "
                f"{str(taught_by)[:12]}, than this one, {manifest.teacher_sha256[:12]}"
            )
    return notes


def _model_facts(model: Model) -> dict[str, Any]:
    return {
        "folder": str(model.folder),
        "name": model.described.name,
        "parameters": model.num_parameters,
        "recipe": model.described.recipe.to_dict(),
        "store_id": model.described.training.get("store_id"),
    }


def _lists(arrays: Any) -> dict[str, Any]:
    return {name: value.tolist() for name, value in asdict(arrays).items()}


def _by_class_lists(found: Mapping[str, ByClass]) -> dict[str, Any]:
    return {role: _lists(classes) for role, classes in found.items()}
