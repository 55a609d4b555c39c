"""What a reader of an evaluation's figures must know: plain sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from softlabel.tools.evaluate.answers import Images
from softlabel.tools.evaluate.bootstrap import Figure
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.teacher_labels import Labelled


def known_targets(images: Images, num_classes: int) -> tuple[Images, list[str]]:
    """Targets, unless they are of another list of classes than the teacher's; and what is amiss."""
    if not len(images.target) or images.target.max() < 0:
        return images, [
            "no targets: the tars give no classes, so generalisation (accuracy, calibration and "
            "the like) is left out"
        ]
    if images.target.max() < num_classes:
        return images, []
    note = (
        f"the tars' targets go up to class {int(images.target.max())}, the teacher has "
        f"{num_classes} classes: they count differently, so accuracy and calibration are left out"
    )
    return replace(images, target=np.full_like(images.target, -1)), [note]


def missing_notes(
    models: Sequence[Model], labelled: Labelled, figures: Mapping[str, Mapping[str, Figure]]
) -> list[str]:
    """Why figures are missing that a reader would look for."""
    manifest, notes = labelled.store.manifest, []
    num_images = figures["student"]["agreement"].n
    if manifest.top_k < manifest.num_classes and "accuracy" in figures["teacher"]:
        notes.append(
            "the teacher's own NLL and Brier score are left out: its labels don't hold all classes"
        )
    if manifest.top_k < min(5, manifest.num_classes):
        notes.append(
            f"top-5 overlap and the teacher's top-5 accuracy are left out: its labels hold only "
            f"{manifest.top_k} classes"
        )
    if manifest.embedding_dim is None:
        notes.append(
            "no embeddings: label with --embedding to have CKA and the correlation of cosines"
        )
    else:
        reason = (
            "one image is too few"
            if num_images == 1
            else "no linear layer makes its logits, or its features or the teacher's embeddings "
            "never change"
        )
        notes += [
            f"no CKA of the {model.role}: {reason}"
            for model in models
            if "cka" not in figures[model.role]
        ]
    return notes


def label_notes(labelled: Labelled) -> list[str]:
    """How the teacher's labels differ from all that could be wished."""
    manifest, notes = labelled.store.manifest, []
    if manifest.view_recipe != "center":
        notes.append(
            f"the teacher was asked about view 0 of recipe {manifest.view_recipe}, another crop "
            "than the centre view that the students see: agreement and KL suffer from that too"
        )
    if manifest.top_k < manifest.num_classes:
        notes.append(
            f"KL and total variation take the {manifest.num_classes - manifest.top_k} classes "
            f"beyond the teacher's stored {manifest.top_k} as one, which makes them lower bounds; "
            "the difference of two lower bounds bounds nothing"
        )
    if left_out := labelled.left_out:
        said = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in left_out.items())
        notes.append(f"left out: {said}")
    return notes


def training_notes(models: Sequence[Model], labelled: Labelled) -> list[str]:
    """Where a student's training and these labels have to do with each other."""
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
