"""One optimisation step: a batch in, the student changed, sums for the meter out."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from softlabel.shards.errors import UsageError
from softlabel.shards.philox import philox
from softlabel.shards.recipe import Recipe
from softlabel.trainer.objective import Objective, Targets
from softlabel.trainer.optimisers import set_learning_rate
from softlabel.trainer.schedule import Schedule
from softlabel.trainer.stream import Batch

_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
_STEP_KEY = 0x73746570  # sets these random numbers apart from those of views


class Normaliser:
    """uint8 pixels to a student's input, on its device."""

    def __init__(self, recipe: Recipe, device: torch.device, *, channels_last: bool) -> None:
        mean, std = torch.tensor([recipe.mean, recipe.std], dtype=torch.float64)
        self._scale = (1 / (255 * std)).float().view(1, 3, 1, 1).to(device)
        self._bias = (-mean / std).float().view(1, 3, 1, 1).to(device)
        self._memory = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, pixels: Tensor) -> Tensor:
        """[N, H, W, 3] uint8 to [N, 3, H, W] float32."""
        x = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=self._memory)
        return x.mul_(self._scale).add_(self._bias)


@dataclass(frozen=True, kw_only=True)
class Training:
    """A student and all that changes it."""

    student: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    objective: Objective
    schedule: Schedule
    normalise: Normaliser
    device: torch.device
    amp: Literal["none", "bf16", "fp16"]
    max_grad_norm: float | None
    seed: int

    def step(self, batch: Batch) -> tuple[Tensor, int]:
        """Take one step; sums [3] of KL, cross-entropy and agreement, and of how many rows."""
        seed_torch(self.seed, batch.step + 1)
        set_learning_rate(self.optimiser, self.schedule.learning_rate(batch.step))
        targets = on_device(batch, self.device)
        image = self.normalise(batch.pixels.to(self.device, non_blocking=True))
        with self._precision():
            logits = self.student(image)
        if not isinstance(logits, Tensor):
            raise UsageError(
                f"--student: in training its forward gives a {type(logits).__name__}, wanted a "
                "tensor of logits; wrap it in a pkg.module:factory that gives logits only"
            )
        self.optimiser.zero_grad(set_to_none=True)
        sums = self.objective.backward(logits, targets, self.scaler)
        if self.max_grad_norm is not None:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.student.parameters(), self.max_grad_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return sums, targets.num_counted

    def _precision(self) -> Any:
        if self.amp == "none":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_AMP[self.amp])


def on_device(batch: Batch, device: torch.device) -> Targets:
    """A batch's labels, where the student is."""

    def moved(array: Any) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    rows = batch.rows
    return Targets(
        topk_logit=moved(rows.topk_logit),
        topk_class=moved(rows.topk_class),
        tail_lse=moved(rows.tail_lse),
        target=moved(rows.target),
        weight=None if (batch.weight == 1).all() else moved(batch.weight),
        num_counted=batch.num_counted,
    )


def seed_torch(seed: int, number: int) -> None:
    """Random numbers of a step (dropout and the like) as a function of the step: no state to keep.

    Number 0 is for the initial weights, step s has number s + 1.
    """
    word = philox((seed, _STEP_KEY), (number, 0, 0, 0))[0] >> 1
    # What torch.manual_seed does, without asking every kind of device: a tenth of a small step.
    torch.default_generator.manual_seed(word)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(word)
