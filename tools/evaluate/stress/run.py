"""Students and teacher on pictures made worse: which pictures, and all of them in turn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.progress import Progress
from softlabel.tools.evaluate.answers import Images
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.reading import PictureReader, Pictures
from softlabel.tools.evaluate.stress.adversarial import Adversarial, AttackedAnswers
from softlabel.tools.evaluate.stress.attacks import Attack
from softlabel.tools.evaluate.stress.chosen import choose, members_of
from softlabel.tools.evaluate.stress.degradations import Degradations, DegradedAnswers
from softlabel.tools.evaluate.stress.views import (
    View,
    attacked_notes,
    degraded_notes,
    largest,
    views_of,
)
from softlabel.tools.evaluate.teacher_labels import Labelled
from softlabel.tools.evaluate.teacher_session import TeacherOnImages


@dataclass(frozen=True, kw_only=True)
class Stress:
    """The result; a part that was not asked for, or has nothing to measure, is None."""

    degradations: Degradations | None
    adversarial: Adversarial | None
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """As evaluation.json has it."""
        parts = {"degradations": self.degradations, "adversarial": self.adversarial}
        return {name: part.to_dict() for name, part in parts.items() if part is not None}


def stress(
    models: Sequence[Model],
    labelled: Labelled,
    images: Images,
    *,
    teacher: TeacherOnImages | None,
    kinds: Sequence[str],
    attacks: Sequence[Attack],
    num_images: int,
    batch_size: int,
    workers: int,
    progress: Progress,
    seed: int = 0,
) -> Stress:
    """Degrade and attack some of the labelled images.

    Args:
        models: the student, then the control if there is one.
        labelled: where the images are.
        images: all of them, in the order of the store, with the targets that count.
        teacher: the teacher itself; None where it is known by its labels only.
        kinds: of degradation; see `degrade.KINDS`.
        attacks: with their budgets.
        num_images: at most so many, chosen by their keys: always the same ones.
        batch_size: images a call of the students.
        workers: threads that read and decode.
        progress: in images, `num_images` or all of them.
        seed: of the degradations' noise; an attack has its own.

    Raises:
        IdentityError, MachineError, TarError: as `PictureReader` has them.
        TeacherError, UsageError: logits that are not finite.
    """
    chosen = choose(images.key_hash, num_images)
    views = views_of(models, teacher, decoder=labelled.store.manifest.decoder)
    notes = _notes(views, teacher, attacks)
    if kinds and teacher is None and not (images.target[chosen] >= 0).any():
        notes.append("pictures were not degraded: no targets and no teacher to measure by")
        kinds = ()
    if kinds:
        notes += degraded_notes(views)
    if not kinds and not attacks:
        return Stress(degradations=None, adversarial=None, notes=notes)
    degraded = DegradedAnswers(models, teacher, kinds=kinds, seed=seed)
    attacked = AttackedAnswers(models, teacher, attacks=attacks)
    done = 0
    with PictureReader(labelled, workers=workers) as reader:
        for batch, target in _batches(reader, models, largest(views), images, chosen, batch_size):
            key_hash, label = batch.pictures.rows.key_hash, batch.pictures.rows.topk_class[:, 0]
            if kinds:
                degraded.add(batch.largest, key_hash=key_hash, target=target)
            if attacks:
                attacked.add(
                    batch.own, key_hash=key_hash, target=target, label=label.astype(np.int64)
                )
            done += len(target)
            progress.update(done, images=done, details={})
    adversarial = attacked.finish() if attacks else None
    return Stress(
        degradations=degraded.finish() if kinds else None,
        adversarial=adversarial,
        notes=[*notes, *_unfooled(adversarial)],
    )


@dataclass(frozen=True, slots=True)
class _Batch:
    pictures: Pictures
    largest: NDArray[np.uint8]
    own: Mapping[str, NDArray[np.uint8]]


def _batches(
    reader: PictureReader,
    models: Sequence[Model],
    shown: View,
    images: Images,
    chosen: NDArray[np.int64],
    batch_size: int,
) -> Iterator[tuple[_Batch, NDArray[np.int64]]]:
    """The chosen images, with their targets; `shown` is the view to degrade."""
    renderer = reader.renderer(shown.recipe, decoder=shown.decoder)
    own = {m.role: reader.renderer(m.described.recipe, decoder=m.decoder) for m in models}
    members = members_of(images, chosen)
    low = 0
    for found in reader.batches([renderer, *own.values()], batch_size=batch_size, members=members):
        high = low + len(found.rows)
        pixels = {role: found.pixels[r] for role, r in own.items()}
        batch = _Batch(found, found.pixels[renderer], pixels)
        yield batch, images.target[chosen[low:high]]
        low = high
    assert low == len(chosen), "images are not in the order of the store"


def _notes(
    views: Sequence[View], teacher: TeacherOnImages | None, attacks: Sequence[Attack]
) -> list[str]:
    notes = attacked_notes(views) if attacks else []
    if teacher is None:
        notes.append(
            "the teacher is known by its labels only and was not asked about degraded or attacked "
            "pictures: no agreement and no transfer there; give --teacher for them"
        )
    return notes


def _unfooled(found: Adversarial | None) -> list[str]:
    """Which students could not be fooled, because they erred before."""
    if found is None:
        return []
    first = found.attacks[0].kind
    return [
        f"the {role} answered none of the {found.n:,} attacked pictures with its class before (the "
        "target, or without one the teacher's label): whether it is fooled can't be said"
        for role, figures in found.figures.items()
        if f"{first}/fooled" not in figures
    ]
