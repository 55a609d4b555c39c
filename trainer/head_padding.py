"""A student's last layer with some more outputs than classes, so that rows of logits are aligned.

The kernel reads and writes rows of 1,000 columns by 128 bits at a time, those of 21,841 by 16. The
outputs added, whose weights are 0, have no gradient, so nothing that trains the student moves them
(with momentum and weight decay too they stay 0). Nor are they in the student's state dict, which
is that of the layer as it was, to be written and to be loaded.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

MIN_CLASSES = 256
"""Narrower rows gain nothing: the kernel takes several at a time."""

_Layer = nn.Linear | nn.Conv2d


def pad_head(
    student: nn.Module, *, num_classes: int, multiple: int, height: int, width: int
) -> list[str]:
    """Widen, in place, the layer that makes the logits to a multiple of so many outputs.

    Of the logits' columns the first `num_classes` are then those that were. The student stays as
    it is where it has less than `MIN_CLASSES` classes, and where no single linear layer or 1x1
    convolution makes its logits.

    Args:
        student: images [N, 3, height, width] to logits [N, num_classes]; on the CPU.
        num_classes: C.
        multiple: of outputs; 1 adds none.
        height: of images that the student takes, and their `width`.

    Returns:
        Lines to say.
    """
    outputs = -(-num_classes // multiple) * multiple
    if num_classes < MIN_CLASSES or outputs == num_classes:
        return []
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    for layer in _candidates(student, num_classes):
        if _can_be_wider(student, layer, outputs, images):
            _resize(layer, outputs)
            _hide(layer, num_classes, outputs)
            return []
    return [
        f"logits stay {num_classes:,} wide: no single linear layer was found that makes them, so "
        f"--pad-head {multiple} has nothing to widen; training is right, but slower"
    ]


def _can_be_wider(student: nn.Module, layer: _Layer, outputs: int, images: Tensor) -> bool:
    """Whether more outputs of the layer are more logits, the others staying as they were."""
    plain, num_outputs = dict(layer.named_parameters(recurse=False)), len(layer.weight)
    generator = torch.Generator().manual_seed(0)
    try:
        # Not its own weights: some heads begin with zeros, and zeros hide what comes after.
        for name, parameter in plain.items():
            trial = torch.randn(parameter.shape, generator=generator).to(parameter)
            setattr(layer, name, nn.Parameter(trial))
        before = _logits(student, images)
        _resize(layer, outputs)
        after = _logits(student, images)
    finally:
        for name, parameter in plain.items():
            setattr(layer, name, parameter)
        _set_outputs(layer, num_outputs)
    if before is None or after is None or after.shape != (len(images), outputs):
        return False
    error, size = (after[:, :num_outputs] - before).abs().max(), before.abs().max()
    # Products of another width may be added up in another order.
    return bool(error <= 1e-4 * size)


def _candidates(student: nn.Module, num_classes: int) -> Iterator[_Layer]:
    """Layers that could make the logits, the last one first."""
    seen: dict[int, int] = {}
    for _, parameter in student.named_parameters(remove_duplicate=False):
        seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    for layer in reversed(list(student.modules())):
        if isinstance(layer, nn.Linear):
            fits = layer.out_features == num_classes
        elif isinstance(layer, nn.Conv2d):
            fits = layer.out_channels == num_classes and layer.kernel_size == (1, 1)
            fits = fits and layer.groups == 1
        else:
            continue
        own = dict(layer.named_parameters(recurse=False))
        # A weight that is computed, or that another layer uses too, must keep its shape.
        plain = "weight" in own and own.keys() <= {"weight", "bias"}
        if fits and plain and all(seen[id(parameter)] == 1 for parameter in own.values()):
            yield layer


def _resize(layer: _Layer, outputs: int) -> None:
    """Give a layer so many outputs: its own, then others that are 0."""
    for name, parameter in list(layer.named_parameters(recurse=False)):
        wider = _resized(parameter.detach(), outputs)
        setattr(layer, name, nn.Parameter(wider, requires_grad=parameter.requires_grad))
    _set_outputs(layer, outputs)


def _set_outputs(layer: _Layer, number: int) -> None:
    if isinstance(layer, nn.Linear):
        layer.out_features = number
    else:
        layer.out_channels = number


def _resized(tensor: Tensor, length: int) -> Tensor:
    """A tensor's rows, then rows of zeros."""
    made = tensor.new_zeros(length, *tensor.shape[1:])
    made[: len(tensor)] = tensor
    return made


def _hide(layer: _Layer, num_classes: int, outputs: int) -> None:
    """Keep the added outputs out of the state dict, written or loaded."""

    def trim(module: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
        for name in module._parameters:
            if prefix + name in state:
                state[prefix + name] = state[prefix + name][:num_classes]

    def widen(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        for name in module._parameters:
            found = state.get(prefix + name)
            if found is not None and len(found) == num_classes:
                state[prefix + name] = _resized(found, outputs)

    hooks: Any = layer  # torch has no types for them
    hooks.register_state_dict_post_hook(trim)
    hooks.register_load_state_dict_pre_hook(widen)


def _logits(student: nn.Module, images: Tensor) -> Tensor | None:
    """What the student says in evaluation mode; None if it fails or gives something else."""
    was_training = student.training
    student.eval()
    try:
        with torch.no_grad():
            found = student(images)
    except Exception:  # whatever someone's forward says to a width that it does not expect
        return None
    finally:
        student.train(was_training)
    return found if isinstance(found, Tensor) else None
