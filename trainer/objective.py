"""What is minimised: divergence from stored labels, cross-entropy with class labels, or both."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from softlabel.kernels.sparse_kl import sparse_kl_grad

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
    total_weight: float
    """Sum of the weights."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """distill_weight * T**2 * KL(teacher || student) + task_weight * cross-entropy.

    Both are sums over the rows times weight, divided by the sum of weights: a row without a target
    adds nothing to the cross-entropy, and no other row counts more for it.
    """

    temperature: float
    tail: Literal["bucket", "uniform", "renorm"]
    distill_weight: float
    task_weight: float

    def backward(self, logits: Tensor, targets: Targets, scaler: torch.amp.GradScaler) -> Tensor:
        """Run backward from logits [B, C]; returns [3]: the sums of KL and of cross-entropy over
        the rows times weight, and the weight on which student and teacher agree."""
        sums = []
        roots: list[Tensor] = []
        gradients: list[Tensor | None] = []
        if self.distill_weight:
            row_loss, gradient = sparse_kl_grad(
                logits,
                targets.topk_logit,
                targets.topk_class,
                targets.tail_lse,
                temperature=self.temperature,
                tail=self.tail,
                weight=targets.weight,
                grad_scale=self.distill_weight / targets.total_weight,
            )
            sums.append(row_loss.sum())
            roots.append(logits)
            gradients.append(scaler.scale(gradient))
        else:
            sums.append(logits.new_zeros((), dtype=torch.float32))
        if self.task_weight:
            task = _cross_entropy(logits, targets)
            sums.append(task.detach())
            roots.append(scaler.scale(task * (self.task_weight / targets.total_weight)))
            gradients.append(None)
        else:
            sums.append(logits.new_zeros((), dtype=torch.float32))
        torch.autograd.backward(roots, gradients)
        return torch.stack([*sums, _agreement(logits.detach(), targets)])


def _cross_entropy(logits: Tensor, targets: Targets) -> Tensor:
    loss = F.cross_entropy(logits.float(), targets.target, ignore_index=NO_TARGET, reduction="none")
    return loss.sum() if targets.weight is None else (loss * targets.weight).sum()


def _agreement(logits: Tensor, targets: Targets) -> Tensor:
    agree = (logits.argmax(dim=1) == targets.topk_class[:, 0]).float()
    return agree.sum() if targets.weight is None else (agree * targets.weight).sum()
