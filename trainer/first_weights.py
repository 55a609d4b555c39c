"""The student that a run begins with: fresh, or one that an earlier run has trained."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from softlabel.shards.errors import IdentityError
from softlabel.shards.hashing import sha256_of_file
from softlabel.shards.recipe import Recipe
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.head_padding import pad_head
from softlabel.trainer.plan import Plan
from softlabel.trainer.student_files import (
    WEIGHTS,
    StudentConfig,
    load_student,
    read_student_config,
)
from softlabel.trainer.training import seed_torch


@dataclass(frozen=True, kw_only=True)
class Student:
    """The module and what is known of it."""

    module: nn.Module
    name: str
    recipe: Recipe
    identity: str
    """The name, and the sha256 of the weights it starts from, if any."""
    num_parameters: int
    """Trained numbers, without those that only widen its last layer."""
    ancestor: dict[str, Any] | None
    """Whose weights it begins with, and what that one was trained on; None for fresh weights."""
    notes: tuple[str, ...]
    """Lines to say before the first step."""


def make_student(plan: Plan) -> Student:
    """The student with its first weights, its last layer widened, on the CPU.

    Raises:
        UsageError: no such student, or one that can't take these images.
        IdentityError: a folder's student has another number of classes.
    """
    config, num_classes = plan.config, plan.store.manifest.num_classes
    seed_torch(config.seed, 0)
    folder = config.begun_from
    if folder is not None:
        found = read_student_config(folder)
        _refuse_other_student(config, folder, found, num_classes)
        recipe = _resized(found.recipe, config.img_size)
        # A factory runs only if its name was typed.
        module, _ = load_student(folder, recipe=recipe, factory=config.student)
        name = found.name
        identity = f"{name} from weights {sha256_of_file(folder / WEIGHTS)[:12]}"
    else:
        recipe = _resized(_as_rgb(plan.recipe), config.img_size)
        assert config.student is not None
        name = identity = config.student
        module = fresh(name, num_classes, recipe).build()
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    notes = pad_head(
        module,
        num_classes=num_classes,
        multiple=config.pad_head,
        height=recipe.height,
        width=recipe.width,
    )
    return Student(
        module=module.train(),
        name=name,
        recipe=recipe,
        identity=identity,
        num_parameters=num_parameters,
        ancestor=_ancestor(folder),
        notes=(*_begun(folder), *notes),
    )


def _refuse_other_student(
    config: TrainConfig, folder: Path, found: StudentConfig, num_classes: int
) -> None:
    if found.num_classes != num_classes:
        raise IdentityError(
            f"--init {folder}: has {found.num_classes} classes, the labels have {num_classes}; "
            "begin from a student of as many classes"
        )
    named = config.init is not None and config.student is not None
    if named and config.student != found.name:
        raise IdentityError(
            f"--init {folder}: is a {found.name}, --student asks for {config.student}; leave "
            "--student out, or begin from such a student"
        )


def fresh(name: str, num_classes: int, recipe: Recipe) -> StudentConfig:
    """A student of which nothing but its making is known yet."""
    return StudentConfig(
        name=name, num_classes=num_classes, recipe=recipe, class_names=None, training={}
    )


def _begun(folder: Path | None) -> list[str]:
    return [] if folder is None else [f"begins from the weights of {folder}"]


def _ancestor(folder: Path | None) -> dict[str, Any] | None:
    """Whom a student goes on from, and what that one was trained on."""
    if folder is None:
        return None
    training = read_student_config(folder).training
    known = ("store_id", "teacher_sha256", "images", "steps", "init")
    return {
        "weights_sha256": sha256_of_file(folder / WEIGHTS),
        **{name: training.get(name) for name in known},
    }


def _as_rgb(recipe: Recipe) -> Recipe:
    """Students see RGB; a BGR teacher's mean and std stand the other way round."""
    if recipe.channels == "rgb":
        return recipe
    return replace(recipe, channels="rgb", mean=recipe.mean[::-1], std=recipe.std[::-1])


def _resized(recipe: Recipe, img_size: int | None) -> Recipe:
    return recipe if img_size is None else replace(recipe, input_size=(3, img_size, img_size))
