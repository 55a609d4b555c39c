"""Every image through the models: what each said of it, and what the teacher had said.

N images, C classes, K classes that the teacher's labels hold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.progress import Progress
from softlabel.tools.evaluate.embeddings import Embeddings
from softlabel.tools.evaluate.metrics import (
    Floats,
    first_classes,
    log_odds,
    log_softmax,
    overlap,
    own_label,
    predictive_kl,
    total_variation,
)
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.reading import PictureReader
from softlabel.tools.evaluate.teacher_labels import Labelled
from softlabel.tools.evaluate.teacher_rows import TeacherRows
from softlabel.trainer.labels import LabelledRows

SHOWN_CLASSES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Where the images are, and what class they were given; [N] each."""

    tar: NDArray[np.int32]
    """Ordinal in the store."""
    member: NDArray[np.int32]
    """Ordinal in the tar."""
    key_hash: NDArray[np.uint64]
    target: NDArray[np.int64]
    """-1 without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What one model says of N images; the teacher's own are its stored labels."""

    classes: NDArray[np.int64]
    """[N, 5 or less] its first classes, in order."""
    probability: Floats
    """[N, 5 or less] of these."""
    kl: Floats
    """[N] KL(teacher || model) in nats; 0 for the teacher."""
    tv: Floats
    """[N] total variation distance to the teacher; 0 for the teacher."""
    overlap: Floats
    """[N] share of its first classes that are among the teacher's first; NaN where unknown."""
    log_odds: Floats
    """[N] log(p / (1 - p)) of the teacher's first class."""
    nll: Floats
    """[N] -log p of the target in nats; NaN without a target, or where its p is not stored."""
    brier: Floats
    """[N] Brier score of the target; NaN likewise."""

    @property
    def first(self) -> NDArray[np.int64]:
        """[N] predicted class."""
        return self.classes[:, 0]

    @property
    def confidence(self) -> Floats:
        """[N] probability of the predicted class."""
        return self.probability[:, 0]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What all models said of all images."""

    images: Images
    answers: Mapping[str, Answers]
    """By role, the teacher's among them."""
    embeddings: Mapping[str, Embeddings]
    """By role of a student: its features beside the teacher's embeddings, where both have them."""


def ask(
    models: Sequence[Model],
    labelled: Labelled,
    *,
    batch_size: int,
    workers: int,
    progress: Progress,
) -> Asked:
    """Show every labelled image to every model; each sees the centre view of its own recipe.

    Raises:
        IdentityError: an image is not the one that was labelled.
        MachineError: a decoder is missing, or can't decode what the labeler could.
        TarError: a tar can't be read.
    """
    images: list[Images] = []
    answers: dict[str, list[Answers]] = {role: [] for role in ("teacher", *_roles(models))}
    embeddings = {role: Embeddings() for role in _roles(models)}
    done = 0
    with PictureReader(labelled, workers=workers) as reader:
        shown = {m.role: reader.renderer(m.described.recipe, decoder=m.decoder) for m in models}
        for batch in reader.batches(list(shown.values()), batch_size=batch_size):
            images.append(_images(batch.rows))
            answers["teacher"].append(_teachers(batch.teacher))
            for model in models:
                logits, features = model.answer(batch.pixels[shown[model.role]])
                answers[model.role].append(_answers(logits, batch.teacher))
                if features is not None and batch.teacher.embedding is not None:
                    embeddings[model.role].add(
                        batch.teacher.embedding, features, key_hash=batch.rows.key_hash
                    )
            done += len(batch.rows)
            progress.update(done, images=done, details={})
    return Asked(
        images=_joined(Images, images),
        answers={role: _joined(Answers, parts) for role, parts in answers.items()},
        embeddings={role: found for role, found in embeddings.items() if found.count},
    )


def _roles(models: Sequence[Model]) -> list[str]:
    return [model.role for model in models]


def _answers(logits: NDArray[np.float32], teacher: TeacherRows) -> Answers:
    labels = (teacher.head, teacher.tail, teacher.rows.topk_class)
    log_student = log_softmax(logits)
    classes, probability = first_classes(log_student, SHOWN_CLASSES)
    nll, brier = own_label(log_student, teacher.rows.target)
    return Answers(
        classes=classes,
        probability=probability,
        kl=predictive_kl(*labels, log_student),
        tv=total_variation(*labels, log_student),
        overlap=_overlap(classes, teacher),
        log_odds=log_odds(log_student, teacher.rows.topk_class[:, 0]),
        nll=nll,
        brier=brier,
    )


def _overlap(classes: NDArray[np.int64], teacher: TeacherRows) -> Floats:
    first = teacher.rows.topk_class[:, :SHOWN_CLASSES]
    if first.shape != classes.shape:
        return np.full(len(classes), np.nan)
    return overlap(classes, first)


def _teachers(teacher: TeacherRows) -> Answers:
    rows, nothing = teacher.rows, np.zeros(len(teacher.rows))
    nll = brier = np.full(len(rows), np.nan)
    if teacher.num_classes == rows.topk_class.shape[1]:
        nll, brier = own_label(teacher.log_probability(), rows.target)
    return Answers(
        classes=rows.topk_class[:, :SHOWN_CLASSES].astype(np.int64),
        probability=teacher.head[:, :SHOWN_CLASSES],
        kl=nothing,
        tv=nothing,
        overlap=np.ones(len(rows)),
        log_odds=teacher.log_odds(),
        nll=nll,
        brier=brier,
    )


def _images(rows: LabelledRows) -> Images:
    return Images(tar=rows.tar, member=rows.member, key_hash=rows.key_hash, target=rows.target)


def _joined(kind: Any, parts: Sequence[Any]) -> Any:
    return kind(
        **{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(kind)}
    )
