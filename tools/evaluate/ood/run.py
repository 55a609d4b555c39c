"""Out-of-distribution detection: do the models know images of the collection from others?"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softlabel.shards.errors import IdentityError, UsageError
from softlabel.shards.progress import Progress
from softlabel.shards.schema import Manifest
from softlabel.shards.specs import redacted
from softlabel.tools.evaluate.answers import Images
from softlabel.tools.evaluate.bootstrap import SHARE, Figure, figure_of
from softlabel.tools.evaluate.metrics import Floats
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.ood.detection import Scores, logit_scores, resampled, values
from softlabel.tools.evaluate.ood.scores import TEACHER, CollectedScores, label_scores
from softlabel.tools.evaluate.ood.unlabelled import unlabelled_views
from softlabel.tools.evaluate.reading import PictureReader
from softlabel.tools.evaluate.stress.chosen import choose, members_of
from softlabel.tools.evaluate.teacher_labels import Labelled
from softlabel.tools.evaluate.teacher_session import TeacherOnImages

MOST_ID_IMAGES = 10_000
"""ID images that are scored, and that are the bank of the nearest-neighbour score."""

_NO_IMAGE = "--ood-shards: wanted images, found none that can be decoded"

_SAME = ("teacher_sha256", "teacher_output", "embedding_output", "recipe", "view_recipe")


@dataclass(frozen=True, kw_only=True)
class Ood:
    """How well each model's scores tell ID from OOD images.

    A figure's name is score/metric: max_softmax, energy, max_logit or knn; auroc, fpr95 or aupr.
    """

    figures: Mapping[str, Mapping[str, Figure]]
    """By role, then by name."""
    differences: Mapping[str, Figure]
    """Student minus control."""
    scores: Mapping[str, Mapping[str, Scores]]
    """By role, then by score: of the ID and of the OOD images."""
    notes: Sequence[str]
    tars: Sequence[str] = ()
    """Of the OOD images, without passwords."""
    labels_store_id: str | None = None
    """The store of the teacher's labels of the OOD images, where they were used."""

    def to_dict(self) -> dict[str, Any]:
        """As evaluation.json has it."""
        return {
            "tars": list(self.tars),
            "labels_store_id": self.labels_store_id,
            "images": {
                role: {"id": len(first[0]), "ood": len(first[1])}
                for role, own in self.scores.items()
                for first in [next(iter(own.values()))]
            },
            "figures": {
                role: {name: figure.to_dict() for name, figure in own.items()}
                for role, own in self.figures.items()
            },
            "student_minus_control": {n: f.to_dict() for n, f in self.differences.items()},
        }


def out_of_distribution(
    models: Sequence[Model],
    labelled: Labelled,
    images: Images,
    *,
    tars: Sequence[str],
    teacher: TeacherOnImages | None,
    ood_labels: Labelled | None,
    batch_size: int,
    workers: int,
    progress: Progress,
) -> Ood:
    """Score ID and OOD images with every model.

    ID are at most MOST_ID_IMAGES of the labelled images, chosen by key; each of them is compared
    with all others of them for the nearest-neighbour score. OOD are all images of `tars`. The
    teacher's scores of the ID images come from its labels, those of the OOD images from itself or
    from labels of them.

    Args:
        models: the student, then the control if there is one.
        labelled: the ID images, with the teacher's labels.
        images: all of them, in the order of the store.
        tars: URLs of the OOD images.
        teacher: the teacher itself; None where it is known by its labels only.
        ood_labels: its labels of the OOD images; used where `teacher` is None.
        batch_size: images a call of the students.
        workers: threads that read and decode.
        progress: in images: the chosen ID ones, then as many again for the OOD ones.

    Raises:
        UsageError: no OOD image can be decoded.
        IdentityError: `ood_labels` are of another teacher.
        SoftLabelError: as the readers of tars have it.
    """
    if teacher is None and ood_labels is not None:
        _require_same_teacher(labelled, ood_labels)
    kinds = {TEACHER: labelled.store.manifest.teacher_output_kind}
    id_parts = CollectedScores(kinds)
    for number in _id_scores(id_parts, models, labelled, images, batch_size, workers):
        progress.update(number, images=number, details={})
    banks = id_parts.banks()
    ood_parts = CollectedScores(kinds, banks)
    refused, number_id = 0, id_parts.count
    for more in _ood_scores(ood_parts, models, labelled, tars, teacher, batch_size, workers):
        refused += more
        done = number_id + min(ood_parts.count, number_id)
        progress.update(done, images=number_id + ood_parts.count, details={})
    if not ood_parts.count:
        raise UsageError(_NO_IMAGE)
    if teacher is None and ood_labels is not None:
        for tar in ood_labels.urls:
            ood_parts.add_labels(ood_labels.rows(tar))
    id_scores, ood_scores = id_parts.scores(banks), ood_parts.scores()
    found = _summed_up(
        {
            role: {name: (own[name], found) for name, found in ood_scores[role].items()}
            for role, own in id_scores.items()
            if role in ood_scores
        },
        _notes(labelled, refused, has_teacher=TEACHER in ood_scores),
    )
    by_labels = teacher is None and ood_labels is not None
    return replace(
        found,
        tars=[redacted(tar) for tar in tars],
        labels_store_id=ood_labels.store.store_id if by_labels and ood_labels else None,
    )


def _id_scores(
    into: CollectedScores,
    models: Sequence[Model],
    labelled: Labelled,
    images: Images,
    batch_size: int,
    workers: int,
) -> Iterator[int]:
    """Fill in the ID images; yields how many there are so far."""
    chosen = choose(images.key_hash, MOST_ID_IMAGES)
    members = members_of(images, chosen)
    with PictureReader(labelled, workers=workers) as reader:
        shown = {m.role: reader.renderer(m.described.recipe, decoder=m.decoder) for m in models}
        for batch in reader.batches(list(shown.values()), batch_size=batch_size, members=members):
            into.add_labels(batch.teacher)
            for model in models:
                logits, features = model.answer(batch.pixels[shown[model.role]])
                into.add(model.role, logit_scores(logits), features)
            into.count += len(batch.rows)
            yield into.count


def _ood_scores(
    into: CollectedScores,
    models: Sequence[Model],
    labelled: Labelled,
    tars: Sequence[str],
    teacher: TeacherOnImages | None,
    batch_size: int,
    workers: int,
) -> Iterator[int]:
    """Fill in the OOD images; yields how many members of each batch are none."""
    ways = [(model.described.recipe, model.decoder) for model in models]
    if teacher is not None:
        ways.append((teacher.recipe, None))
    for views in unlabelled_views(
        tars,
        ways,
        manifest=labelled.store.manifest,
        batch_size=batch_size,
        workers=workers,
    ):
        if len(views.pixels[0]):
            for model, pixels in zip(models, views.pixels, strict=False):
                logits, features = model.answer(pixels)
                into.add(model.role, logit_scores(logits), features)
            if teacher is not None:
                logits, embedding = teacher.answer(views.pixels[-1])
                if embedding is not None:
                    embedding = embedding.astype(np.float16).astype(np.float32)
                into.add(TEACHER, label_scores(logits), embedding)
        into.count += len(views.pixels[0])
        yield views.refused


def require_image(tars: Sequence[str], models: Sequence[Model], manifest: Manifest) -> None:
    """Refuse OOD tars without one image that can be decoded; reads up to the first that can.

    A pipe is not tried: its command would run twice.

    Raises:
        UsageError: none can be decoded.
        SoftLabelError: a tar before it can't be read.
    """
    if any(tar.startswith("pipe:") for tar in tars):
        return
    ways = [(model.described.recipe, model.decoder) for model in models]
    # A batch of 1 ends the reading early.
    views = unlabelled_views(tars, ways, manifest=manifest, batch_size=1, workers=1)
    with closing(views):  # type: ignore[type-var]
        if not any(len(found.pixels[0]) for found in views):
            raise UsageError(_NO_IMAGE)


def _require_same_teacher(labelled: Labelled, ood: Labelled) -> None:
    ours, theirs = labelled.store.manifest, ood.store.manifest
    for name in _SAME:
        if getattr(ours, name) != getattr(theirs, name):
            raise IdentityError(
                f"--ood-labels {ood.store.path}: made with another {name} than "
                f"{labelled.store.path}; label the OOD images as those of --shards were"
            )


def _summed_up(scores: Mapping[str, Mapping[str, Scores]], notes: Sequence[str]) -> Ood:
    figures: dict[str, dict[str, Figure]] = {role: {} for role in scores}
    drawn: dict[str, dict[str, Floats]] = {}
    for role, own in scores.items():
        drawn[role] = resampled(own)
        for score, both in own.items():
            for metric, value in values(*both).items():
                name = f"{score}/{metric}"
                figures[role][name] = figure_of(
                    value, drawn[role][name], n=sum(map(len, both)), span=SHARE
                )
    differences = _differences(figures, drawn)
    return Ood(figures=figures, differences=differences, scores=scores, notes=notes)


def _differences(
    figures: Mapping[str, Mapping[str, Figure]], drawn: Mapping[str, Mapping[str, Floats]]
) -> dict[str, Figure]:
    """Student minus control; both see the same images, hence the same resamples."""
    ours, theirs = figures["student"], figures.get("control", {})
    return {
        name: figure_of(
            ours[name].value - theirs[name].value,
            drawn["student"][name] - drawn["control"][name],
            n=ours[name].n,
        )
        for name in ours
        if name in theirs
    }


def _notes(labelled: Labelled, refused: int, *, has_teacher: bool) -> list[str]:
    notes = []
    if refused:
        notes.append(f"OOD: left out {refused:,} members that are no image or can't be decoded")
    if not has_teacher:
        notes.append("OOD: the teacher's scores need --teacher, or --ood-labels with --labels")
    elif labelled.store.manifest.teacher_output_kind == "probabilities":
        notes.append(
            "OOD: the teacher gives probabilities, whose energy is 0: that score is left out"
        )
    return notes
