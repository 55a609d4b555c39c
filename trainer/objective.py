"""What is minimised: divergence from stored labels, cross-entropy with class labels, or both."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import sparse_kl_grad
from softlabel.kernels.sparse_kl.targets import Tail

NO_TARGET = -1


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The labels of a batch of B, on the student's device."""

    topk_logit: Tensor
    """[B, K] float16"""
    topk_class: Tensor
    """[B, K] int32"""
    tail_lse: Tensor
    """[B] float32, at the objective's temperature"""
    target: Tensor
    """[B] int64, -1 without one"""
    weight: Tensor | None
    """[B] float32; None where every row counts once"""
    num_counted: int
    """Rows that are no filling: what sums are divided by."""


class GradientBuffer:
    """Memory of the gradient, for all steps: fresh pages each time would double the CPU's work."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def like(self, logits: Tensor) -> Tensor:
        """Memory of this shape, dtype and device; what it held the last time is void."""
        found = self._buffer
        if found is None or (found.shape, found.dtype, found.device) != (
            logits.shape, logits.dtype, logits.device,
        ):  # fmt: skip
            self._buffer = found = torch.empty(
                logits.shape, dtype=logits.dtype, device=logits.device
            )
        return found


@dataclass(frozen=True, kw_only=True)
class Objective:
    """distill_weight * T**2 * KL(teacher || student) + task_weight * cross-entropy.

    Both are sums over the rows times weight, divided by the number of rows: a row without a target
    adds nothing to the cross-entropy, and no other row counts more for it.
    """

    temperature: float
    tail: Tail
    distill_weight: float
    task_weight: float
    smoothing: float
    """Of the labels of the cross-entropy."""
    num_classes: int
    """Columns of the logits that count; a widened last layer has more."""
    gradient: GradientBuffer = field(default_factory=GradientBuffer)

    def backward(self, logits: Tensor, targets: Targets, scaler: torch.amp.GradScaler) -> Tensor:
        """Run backward from logits [B, W]; returns [3]: the sums of KL and of cross-entropy over
        the rows times weight, and on how many rows student and teacher agree."""
        given = logits.detach()
        losses, gradient = sparse_kl_grad(
            given,
            targets.topk_logit,
            targets.topk_class,
            targets.tail_lse,
            temperature=self.temperature,
            tail=self.tail,
            target=targets.target if self.task_weight else None,
            soft_weight=self.distill_weight,
            hard_weight=self.task_weight,
            label_smoothing=self.smoothing,
            ignore_index=NO_TARGET,
            weight=targets.weight,
            num_classes=self.num_classes,
            grad_scale=_scale(1 / targets.num_counted, scaler, logits.device),
            out=self.gradient.like(given),
            return_parts=True,
        )
        torch.autograd.backward(logits, gradient)
        agreement = _agreement(given[:, : self.num_classes], targets)
        return torch.stack([losses.soft.sum(), losses.hard.sum(), agreement])


def _scale(factor: float, scaler: torch.amp.GradScaler, device: torch.device) -> float | Tensor:
    """The factor times the loss scale, which the host does not know.

    The kernel multiplies by it before it rounds: 1 / B of a small probability is nothing in
    float16.
    """
    if not scaler.is_enabled():
        return factor
    scaled: Tensor = scaler.scale(torch.full((), factor, device=device))
    return scaled


def _agreement(logits: Tensor, targets: Targets) -> Tensor:
    """Rows that agree, each counting once whatever its weight; filling, of weight 0, does not."""
    agree = logits.argmax(dim=1) == targets.topk_class[:, 0]
    return (agree if targets.weight is None else agree & (targets.weight > 0)).float().sum()
