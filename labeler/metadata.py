"""What stands in an ONNX file's metadata: the teacher's recipe and the names of its classes."""

import json
from collections.abc import Sequence
from pathlib import Path

import onnx

from softlabel.shards.errors import TeacherError, UsageError
from softlabel.shards.recipe import METADATA_KEY, Recipe

CLASS_NAMES_KEY = "softlabel.class_names"


def recorded_recipe(model: onnx.ModelProto, path: Path) -> Recipe | None:
    """The recipe in the model's metadata; None without one.

    Raises:
        TeacherError: it is no recipe.
    """
    content = _recorded(model, path, METADATA_KEY)
    if content is None:
        return None
    source = f"{path}: metadata {METADATA_KEY}"
    if not isinstance(content, dict):
        raise TeacherError(f"{source}: wanted a JSON object, found {content!r:.60}")
    try:
        return Recipe.from_dict(content, source=source)
    except UsageError as error:
        raise TeacherError("; ".join(str(error).splitlines())) from None


def recorded_class_names(
    model: onnx.ModelProto, path: Path, num_classes: int
) -> tuple[str, ...] | None:
    """The class names in the model's metadata; None without them.

    Raises:
        TeacherError: they are no list of names, one a class.
    """
    content = _recorded(model, path, CLASS_NAMES_KEY)
    if content is None:
        return None
    try:
        return _checked(content, f"{path}: metadata {CLASS_NAMES_KEY}", num_classes)
    except UsageError as error:
        raise TeacherError(str(error)) from None


def record(model: onnx.ModelProto, recipe: Recipe, class_names: Sequence[str] | None) -> None:
    """Write recipe and class names into the model's metadata; other entries stay."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    entries[METADATA_KEY] = json.dumps(recipe.to_dict())
    if class_names is not None:
        entries[CLASS_NAMES_KEY] = json.dumps(list(class_names), ensure_ascii=False)
    del model.metadata_props[:]
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value)


def read_class_names(path: Path, *, num_classes: int) -> tuple[str, ...]:
    """Class names from a file: one a line, or a JSON list.

    Raises:
        UsageError: no such file, or not one name a class.
    """
    source = f"--class-names {path}"
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except OSError as error:
        raise UsageError(f"{source}: can't be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"{source}: wanted one name a line, or a JSON list: {error}") from None
    return _checked(names, source, num_classes)


def _checked(names: object, source: str, num_classes: int) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{source}: wanted a list of {num_classes} names, found {names!r:.60}")
    if len(names) != num_classes:
        raise UsageError(
            f"{source}: wanted one name for each of the teacher's {num_classes} classes, "
            f"found {len(names)}"
        )
    return tuple(names)


def _recorded(model: onnx.ModelProto, path: Path, key: str) -> object:
    text = next((entry.value for entry in model.metadata_props if entry.key == key), None)
    if text is None:
        return None
    try:
        content: object = json.loads(text)
    except ValueError as error:
        raise TeacherError(
            f"{path}: metadata {key}: wanted JSON, found {text!r:.60}: {error}"
        ) from None
    return content
