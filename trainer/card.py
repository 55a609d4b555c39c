"""The model card: one page on what a student is and where it comes from."""

from collections.abc import Mapping
from typing import Any

from softlabel.trainer.student_files import StudentConfig

_CARD = """\
---
tags:
- softlabel
- image-classification
- knowledge-distillation
library_name: {library}
---

# {name}

A student with {parameters:,} parameters and {num_classes} classes, trained by softlabel on a
teacher's stored labels.

| | |
|---|---|
| teacher (sha256 of the ONNX file) | `{teacher_sha256}` |
| label store | `{store_id}` |
| images | {images:,} in {tars:,} tars, {steps:,} steps of {batch_size} |
| objective | {objective} |
| views | {views} |
| input | {size}, mean {mean}, std {std}, {interpolation}, crop {crop_pct:g} |
| last training rows | {metrics} |

{consistency}

How faithful it is to its teacher is for `kd-eval` to say. `config.json` holds all settings.
"""
_CONSISTENT = (
    "Training was *consistent*: the student saw each image through the crop and flip that the "
    "teacher had labelled."
)
_INCONSISTENT = (
    "Training was *inconsistent*: the student saw its own crops and flips (`{augment}`), other "
    "ones than the teacher had labelled."
)


def model_card(config: StudentConfig, *, parameters: int, metrics: Mapping[str, str]) -> str:
    """README.md of a student's folder."""
    training = config.training
    recipe = config.recipe
    consistency = _CONSISTENT if training["consistent"] else _INCONSISTENT
    return _CARD.format(
        library="timm" if config.name.startswith("timm/") else "softlabel",
        name=config.name,
        parameters=parameters,
        num_classes=config.num_classes,
        teacher_sha256=training["teacher_sha256"],
        store_id=training["store_id"],
        images=training["images"],
        tars=training["tars"],
        steps=training["steps"],
        batch_size=training["batch_size"],
        objective=_objective(training),
        views=f"{training['views']} of recipe {training['view_recipe']}",
        size=f"{recipe.height}x{recipe.width}",
        mean=_numbers(recipe.mean),
        std=_numbers(recipe.std),
        interpolation=recipe.interpolation,
        crop_pct=recipe.crop_pct,
        metrics=", ".join(f"{name} {value}" for name, value in metrics.items()) or "none",
        consistency=consistency.format(augment=training["augment"]),
    )


def _objective(training: Mapping[str, Any]) -> str:
    parts = []
    if training["distill_loss_weight"]:
        parts.append(
            f"{training['distill_loss_weight']:g} x KL at temperature "
            f"{training['kd_temperature']:g}, tail rule {training['tail']}"
        )
    if training["task_loss_weight"]:
        smoothed = training["smoothing"]
        note = f", smoothing {smoothed:g}" if smoothed else ""
        parts.append(f"{training['task_loss_weight']:g} x cross-entropy with class labels{note}")
    return " + ".join(parts)


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
