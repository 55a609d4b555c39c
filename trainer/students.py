"""A student's name to a module with fresh weights."""

import difflib
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabel.shards.errors import UsageError
from softlabel.trainer.small_cnn import SmallCNN

SMALL_CNN = "softlabel/small-cnn"
KINDS = "softlabel/small-cnn, torchvision/NAME, timm/NAME, pkg.module:factory or a student's folder"
_WITH_AUXILIARY = ("googlenet", "inception_v3")


def build_student(name: str, *, num_classes: int, height: int, width: int) -> nn.Module:
    """A new module, images [N, 3, height, width] to logits [N, num_classes].

    Args:
        name: softlabel/small-cnn, torchvision/NAME, timm/NAME or pkg.module:factory; the factory
            is called with `num_classes`.
        num_classes: width of the output.
        height: of the input; only models that are built for one size look at it. `width` likewise.

    Raises:
        UsageError: no such student, an extra that is not installed, or a module that does not map
            such images to such logits.
    """
    library, _, model = name.partition("/")
    if name == SMALL_CNN:
        student: Any = SmallCNN(num_classes)
    elif library == "torchvision":
        student = _from_torchvision(model, num_classes)
    elif library == "timm":
        student = _from_timm(model, num_classes, height, width)
    elif ":" in name:
        student = _from_factory(name, num_classes)
    else:
        raise UsageError(f"--student {name}: wanted {KINDS}")
    _check(student, name, num_classes, height, width)
    module: nn.Module = student
    return module


def timm_arguments(model: str, height: int, width: int) -> dict[str, Any]:
    """What timm must be told to build a model for this size: fixed-size ones need `img_size`."""
    import timm

    cfg = timm.get_pretrained_cfg(model, allow_unregistered=True)
    if cfg is None or not cfg.fixed_input_size or cfg.input_size[1:] == (height, width):
        return {}
    return {"img_size": [height, width]}


def _from_torchvision(model: str, num_classes: int) -> nn.Module:
    try:
        from torchvision import models
    except Exception as error:  # builds that do not fit each other fail in many ways
        raise UsageError(f"--student torchvision/{model}: torchvision: {error}") from None
    known = models.list_models(module=models)
    if model not in known:
        raise UsageError(_unknown(f"torchvision/{model}", "torchvision", known))
    # With auxiliary heads their training forward would return more than logits.
    options = {"aux_logits": False, "init_weights": True} if model in _WITH_AUXILIARY else {}
    student: nn.Module = models.get_model(model, weights=None, num_classes=num_classes, **options)
    return student


def _from_timm(model: str, num_classes: int, height: int, width: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise UsageError(
            f"--student timm/{model}: timm is not installed; pip install 'softlabel[timm]'"
        ) from None
    # Prefixes such as hf_hub: would download.
    if ":" in model or not timm.is_model(model):
        raise UsageError(_unknown(f"timm/{model}", "timm", timm.list_models()))
    try:
        student: nn.Module = timm.create_model(
            model, num_classes=num_classes, **timm_arguments(model, height, width)
        )
    except TypeError as error:  # a model of one size that takes no img_size
        raise UsageError(
            f"--student timm/{model}: can't be built for {height}x{width} images: {error}"
        ) from None
    return student


def _from_factory(name: str, num_classes: int) -> nn.Module:
    module, _, factory = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in factory.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"--student {name}: {error}; the module must be importable, by PYTHONPATH if need be"
        ) from None
    student = found(num_classes=num_classes)
    if not isinstance(student, nn.Module):
        raise UsageError(
            f"--student {name}: wanted a torch.nn.Module, it returned {type(student).__name__}"
        )
    return student


def _unknown(name: str, library: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.partition("/")[2], known, n=3)
    hint = f"; did you mean {', '.join(f'{library}/{other}' for other in near)}?" if near else ""
    return f"--student {name}: no such image classifier in {library}{hint}"


def _check(student: nn.Module, name: str, num_classes: int, height: int, width: int) -> None:
    was_training = student.training
    student.eval()
    try:
        with torch.no_grad():
            logits = student(torch.zeros(2, 3, height, width))
    except Exception as error:  # whatever someone's forward says to a size that it can't take
        raise UsageError(
            f"--student {name}: can't take images of {height}x{width} pixels: {error}; "
            "try another --img-size"
        ) from None
    student.train(was_training)
    if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
        shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UsageError(f"--student {name}: wanted logits [N, {num_classes}], it gives {shape}")


def is_student_folder(name: str) -> bool:
    """Whether --student names a folder that kd-train wrote."""
    return Path(name).is_dir()
