"""The result of an evaluation: every figure, and what each model said of each image."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.specs import redacted
from softlabel.tools.evaluate.answers import Answers, Asked, Images
from softlabel.tools.evaluate.bootstrap import (
    LEVEL,
    RESAMPLES,
    Figure,
)
from softlabel.tools.evaluate.metrics import (
    ByClass,
    Reliability,
    by_class,
    reliability,
)
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.notes import (
    known_targets,
    label_notes,
    missing_notes,
    training_notes,
)
from softlabel.tools.evaluate.ood.run import Ood
from softlabel.tools.evaluate.quantities import figures_of
from softlabel.tools.evaluate.stress.run import Stress
from softlabel.tools.evaluate.teacher_labels import TEMPERATURE, Labelled

FORMAT = 2


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
    """By role, then by a name of `quantities.GROUPS`; those that can't be had (no targets, too few
    classes, no embedding) are missing."""
    differences: Mapping[str, Figure]
    """Student minus control, by name of figure; empty without a control."""
    reliability: Mapping[str, Reliability]
    """By role; empty without targets."""
    agreement_by_class: Mapping[str, ByClass]
    """By role: the agreement with the teacher, by the teacher's class."""
    accuracy_by_class: Mapping[str, ByClass]
    """By role: the accuracy, by target; empty without targets."""
    own_notes: Sequence[str]
    """What a reader of these figures must know."""
    ood: Ood | None = None
    """OOD detection, if asked for."""
    stress: Stress | None = None
    """Degradations and attacks, if asked for."""

    @property
    def notes(self) -> list[str]:
        """What a reader must know, of all parts."""
        parts = [part.notes for part in (self.ood, self.stress) if part is not None]
        return [*self.own_notes, *(note for notes in parts for note in notes)]

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
    def lower_bounds(self) -> list[str]:
        """Names of figures whose true value can only be larger, as some classes are not stored."""
        manifest = self.labelled.store.manifest
        return [] if manifest.top_k == manifest.num_classes else ["kl", "tv"]

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
                role: {name: figure.to_dict() for name, figure in figures.items()}
                for role, figures in self.figures.items()
            },
            "student_minus_control": {n: f.to_dict() for n, f in self.differences.items()},
            "lower_bounds": self.lower_bounds,
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
            "interval": {"level": LEVEL, "resamples": RESAMPLES, "seed": 0},
            "reliability": {role: _lists(bins) for role, bins in self.reliability.items()},
            "classes": self.class_names,
            "agreement_by_class": _by_class_lists(self.agreement_by_class),
            "accuracy_by_class": _by_class_lists(self.accuracy_by_class),
            **({} if self.ood is None else {"ood": self.ood.to_dict()}),
            **({} if self.stress is None else self.stress.to_dict()),
            "notes": self.notes,
        }


def sum_up(models: Sequence[Model], labelled: Labelled, asked: Asked) -> Evaluation:
    """All figures of the answers."""
    manifest = labelled.store.manifest
    images, target_notes = known_targets(asked.images, manifest.num_classes)
    known = images.target >= 0
    target = images.target[known]
    answers = asked.answers
    teacher = answers["teacher"].first
    students = {role: found for role, found in answers.items() if role != "teacher"}
    figures, differences = figures_of(replace(asked, images=images), manifest.num_classes)
    return Evaluation(
        models=models,
        labelled=labelled,
        images=images,
        answers=answers,
        figures=figures,
        differences=differences,
        reliability={
            role: reliability(found.confidence[known], found.first[known] == target)
            for role, found in answers.items()
            if known.any()
        },
        agreement_by_class={
            role: by_class(teacher, found.first == teacher, manifest.num_classes)
            for role, found in students.items()
        },
        accuracy_by_class={
            role: by_class(target, found.first[known] == target, manifest.num_classes)
            for role, found in answers.items()
            if known.any()
        },
        own_notes=[
            *label_notes(labelled),
            *training_notes(models, labelled),
            *target_notes,
            *missing_notes(models, labelled, figures),
        ],
    )


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
