"""The students of an evaluation: loaded from their folders, and asked."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softlabel.shards.errors import IdentityError, UsageError
from softlabel.tools.evaluate.config import EvalConfig
from softlabel.tools.evaluate.features import features_of
from softlabel.trainer.assembly import resolve_device
from softlabel.trainer.student_files import StudentConfig, load_student, read_student_config
from softlabel.trainer.training import Normaliser


@dataclass(frozen=True, kw_only=True)
class Model:
    """A student, or the control, on its device."""

    role: str
    """student | control: the flag that named it."""
    folder: Path
    described: StudentConfig
    module: nn.Module
    normalise: Normaliser
    device: torch.device

    @property
    def num_parameters(self) -> int:
        """Trained numbers."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def decoder(self) -> str | None:
        """The decoder it was trained with, where its folder says so."""
        found = self.described.training.get("decoder")
        return None if found is None else str(found)

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[N, H, W, 3] RGB to [N, C]; UsageError if one is not finite."""
        return self.answer(pixels)[0]

    def answer(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Logits and penultimate features; UsageError if a logit is not finite.

        Args:
            pixels: [N, H, W, 3] RGB.

        Returns:
            [N, C], and [N, D] or None where no linear layer makes the logits.
        """
        with torch.inference_mode(), features_of(self.module, self.described.num_classes) as caught:
            found = self.module(self.normalise(torch.from_numpy(pixels).to(self.device)))
        assert isinstance(found, Tensor)
        logits: NDArray[np.float32] = found.float().cpu().numpy()
        if not np.isfinite(logits).all():
            raise UsageError(
                f"--{self.role} {self.folder}: its logits are not finite: training diverged, or "
                "the weights are damaged"
            )
        if caught.features is None:
            return logits, None
        return logits, caught.features.float().cpu().numpy()


def load_models(config: EvalConfig) -> list[Model]:
    """The student and, if there is one, the control.

    Raises:
        UsageError: no student there, or one whose factory was not allowed.
        IdentityError: the two have other numbers of classes.
        MachineError: --device is not to be had.
    """
    device = resolve_device(config.device)
    models = [_load("student", config.student, config, device)]
    if config.control is not None:
        models.append(_load("control", config.control, config, device))
        require_classes(
            models[1], models[0].described.num_classes, of=f"--student {config.student}"
        )
    return models


def require_classes(model: Model, wanted: int, *, of: str) -> None:
    """IdentityError unless the model has so many classes."""
    if model.described.num_classes != wanted:
        raise IdentityError(
            f"--{model.role} {model.folder}: has {model.described.num_classes} classes, {of} has "
            f"{wanted}: they can't be compared"
        )


def _load(role: str, folder: Path, config: EvalConfig, device: torch.device) -> Model:
    name = read_student_config(folder).name
    if ":" in name and name not in config.factory:
        raise UsageError(
            f"--{role} {folder}: was built by {name}; add --factory {name} to let it run"
        )
    module, described = load_student(folder, factory=name if ":" in name else None)
    return Model(
        role=role,
        folder=folder,
        described=described,
        module=module.to(device),
        normalise=Normaliser(described.recipe, device, channels_last=False),
        device=device,
    )
