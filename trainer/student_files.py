"""A student's folder, in the layout of timm and the Hugging Face Hub: written, and read back.

model.safetensors  the weights
config.json        architecture, preprocessing as timm's pretrained_cfg, and under `softlabel`
                   the student's name and how it was trained
README.md          the model card
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor, nn

from softlabel.shards import durable
from softlabel.shards.errors import IdentityError, MachineError, UsageError
from softlabel.shards.recipe import Recipe
from softlabel.trainer.students import build_student, timm_arguments

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """What a student is, apart from its weights."""

    name: str
    """As --student had it: torchvision/resnet18."""
    num_classes: int
    recipe: Recipe
    """Its own preprocessing: input size, mean and std. Channels are RGB."""
    class_names: tuple[str, ...] | None
    training: Mapping[str, Any]
    """Store id, teacher, loss, seed, steps and versions: where the weights come from."""

    def build(self) -> nn.Module:
        """The module with fresh weights."""
        return build_student(
            self.name,
            num_classes=self.num_classes,
            height=self.recipe.height,
            width=self.recipe.width,
        )

    def to_dict(self) -> dict[str, Any]:
        """Config.json: what timm reads, and ours under `softlabel`."""
        library, _, model = self.name.partition("/")
        cfg = {k: v for k, v in self.recipe.to_dict().items() if k != "channels"}
        data: dict[str, Any] = {
            "architecture": model if library == "timm" else self.name,
            "num_classes": self.num_classes,
            "pretrained_cfg": {**cfg, "num_classes": self.num_classes},
            "softlabel": {"student": self.name, "training": dict(self.training)},
        }
        if library == "timm":
            data["model_args"] = timm_arguments(model, self.recipe.height, self.recipe.width)
        if self.class_names is not None:
            data["label_names"] = list(self.class_names)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, source: str) -> "StudentConfig":
        """Read config.json; UsageError if kd-train did not write it."""
        try:
            ours, names = data["softlabel"], data.get("label_names")
            return cls(
                name=str(ours["student"]),
                num_classes=int(data["num_classes"]),
                recipe=Recipe.from_dict(data["pretrained_cfg"], source=source),
                class_names=None if names is None else tuple(map(str, names)),
                training=dict(ours["training"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{source}: wanted a config.json of kd-train: {error!r}") from None


def save_student(directory: Path, student: nn.Module, config: StudentConfig, *, card: str) -> None:
    """Write a student's three files, each whole or not at all; MachineError if that fails."""
    text = json.dumps(config.to_dict(), indent=2) + "\n"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        durable.replace_all(
            {
                directory / CONFIG: text.encode(),
                directory / CARD: card.encode(),
                directory / WEIGHTS: packed(dict(student.state_dict())),
            }
        )
    except OSError as error:
        raise MachineError(f"{directory}: can't write the student: {error.strerror}") from error


def read_student_config(directory: Path) -> StudentConfig:
    """A student folder's config.json; UsageError if there is none of kd-train's."""
    path = directory / CONFIG
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{directory}: wanted a student made by kd-train: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: wanted a JSON object")
    return StudentConfig.from_dict(data, source=str(path))


def load_student(
    directory: Path, *, factory: str | None = None, recipe: Recipe | None = None
) -> tuple[nn.Module, StudentConfig]:
    """A student with its weights, in evaluation mode, on the CPU. Nothing is unpickled.

    Args:
        directory: what `save_student` wrote.
        factory: pkg.module:factory, to be given for a student that was built by it: a file must
            not choose which code runs.
        recipe: preprocessing to build it for, if not its own.

    Raises:
        UsageError: no student there, a damaged file, or a factory that was not named.
        IdentityError: weights of another architecture.
    """
    config = read_student_config(directory)
    if ":" in config.name and factory != config.name:
        raise UsageError(
            f"{directory}: the student was built by {config.name}; name that factory to allow it"
        )
    if recipe is not None:
        config = replace(config, recipe=recipe)
    student = config.build()
    load_weights(student, directory / WEIGHTS)
    return student.eval(), config


def load_weights(student: nn.Module, path: Path) -> None:
    """Put a safetensors file's weights into a module of the same architecture.

    Raises:
        UsageError: no such file, or a damaged one.
        IdentityError: weights of another architecture.
    """
    try:
        weights = safetensors.torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: wanted safetensors weights: {error}") from None
    try:
        student.load_state_dict(weights)
    except RuntimeError as error:
        raise IdentityError(f"{path}: weights of another architecture: {error}") from None


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Safetensors bytes; equal tensors give equal bytes, wherever and however they lie."""
    # Each a copy of its own: the format holds no two names for one memory.
    plain = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return safetensors.torch.save(plain, metadata={"format": "pt"})
