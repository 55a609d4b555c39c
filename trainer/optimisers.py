"""Optimisers of torch.optim by timm's names, and their state as tensors and plain numbers."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

OptimiserName = Literal["sgd", "momentum", "adam", "adamw", "nadam", "radam", "rmsprop"]


def make_optimiser(
    name: OptimiserName, student: nn.Module, *, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """The optimiser of a student's parameters; biases and norms, having one axis, do not decay."""
    trained = [p for p in student.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optim = torch.optim
    match name:
        case "sgd":
            return optim.SGD(groups, lr=lr, momentum=momentum, nesterov=True)
        case "momentum":
            return optim.SGD(groups, lr=lr, momentum=momentum)
        case "adam":
            return optim.Adam(groups, lr=lr)
        case "adamw":
            return optim.AdamW(groups, lr=lr)
        case "nadam":
            return optim.NAdam(groups, lr=lr, decoupled_weight_decay=True)
        case "radam":
            return optim.RAdam(groups, lr=lr, decoupled_weight_decay=True)
        case "rmsprop":
            return optim.RMSprop(groups, lr=lr, momentum=momentum)


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """For the next step, in all groups."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def optimiser_state(optimiser: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What the optimiser has gathered: tensors, and plain numbers, by `parameter.name`."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, values in optimiser.state_dict()["state"].items():
        for name, value in values.items():
            into: dict[str, Any] = tensors if isinstance(value, Tensor) else numbers
            into[f"{parameter}.{name}"] = value
    return tensors, numbers


def restore_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Put back what `optimiser_state` gave; hyperparameters stay those of `optimiser`."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **numbers}.items():
        index, _, name = key.partition(".")
        if isinstance(value, Tensor) and value.shape == parameters[int(index)].shape:
            # In the parameter's memory format, so that vector instructions group as before.
            like = torch.empty_like(parameters[int(index)], dtype=value.dtype, device="cpu")
            value = like.copy_(value)
        state.setdefault(int(index), {})[name] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
