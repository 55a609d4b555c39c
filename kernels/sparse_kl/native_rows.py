"""What the torch backend knows of its rows before it passes over their columns.

Entries that do not exist, rows without any, and targets to ignore are turned here into factors of
0 and harmless indices, so that the passes need not tell them apart.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl.targets import Targets


class Rows(NamedTuple):
    """B rows of logits, their targets, and where the results go.

    `kept` and `target_logit` are relative to `anchor`, which is one of the row's own logits: no
    digits are lost in their logarithms, wherever the row may lie.
    """

    logits: Tensor
    """[B, W]"""
    out: Tensor
    """[B, W], the gradient"""
    soft_loss: Tensor
    """[B], to be added to; without T**2 and row weight, like the next"""
    hard_loss: Tensor
    anchor: Tensor
    """[B, 1]"""
    classes: Tensor
    """[B, K] int64, all in [0, C); K is at least 1"""
    kept: Tensor
    """[B, K] the student's logits / T there; -inf where an entry repeats another"""
    prob: Tensor
    """[B, K + 1] the teacher's probabilities, the tail's last"""
    log_prob: Tensor
    """[B, K + 1]"""
    others: Tensor | int
    """[B, 1] number of classes not stored, at least 1"""
    origin: Tensor | None
    """[B, K] int64, the entry that each entry repeats; None if none does"""
    soft: Tensor | float
    """[B, 1] factor of the soft gradient"""
    hard: Tensor | None
    """[B, 1] factor of the hard gradient; None without targets"""
    target: Tensor | None
    """[B, 1] int64 in [0, C)"""
    target_logit: Tensor | None
    """[B, 1] at temperature 1"""
    without_soft: Tensor | None
    """[B] rows that have no stored class; None if all do"""
    without_hard: Tensor | None
    """[B] rows whose target is ignored"""
    dead: Tensor | None
    """[B] rows whose gradient is 0 whatever they hold"""

    def part(self, begin: int, end: int) -> "Rows":
        """Rows [begin, end)."""
        B = len(self.logits)
        fields = (f[begin:end] if isinstance(f, Tensor) and len(f) == B else f for f in self)
        return Rows._make(fields)


def is_readable(tensor: Tensor) -> bool:
    """Whether values may be looked at without waiting for a device.

    Elsewhere what does not exist is no error but a row of NaN, and all that may be is expected.
    """
    return tensor.device.type == "cpu"


def prepared(
    logits: Tensor,
    out: Tensor,
    soft_loss: Tensor,
    hard_loss: Tensor,
    targets: Targets,
    grad_scale: float,
    scale_tensor: Tensor | None,
) -> Rows:
    """Everything but the passes over the columns; raises IndexError on the CPU only."""
    T, C = targets.temperature, targets.num_classes
    dead = None if targets.weight is None else targets.weight == 0
    target, ignored = _target(targets, dead)
    classes, without_soft, origin = _classes(targets, dead, target)
    wrong = None
    if not is_readable(logits):
        wrong = (classes >= C).any(dim=1, keepdim=True)
        classes = classes.clamp(0, C - 1)
    kept = logits.gather(1, classes).to(soft_loss.dtype)
    if origin is not None:
        kept = kept.masked_fill(~_is_own(origin), -math.inf)
    anchor = kept.amax(dim=1, keepdim=True)
    target_logit = None
    if target is not None:
        if wrong is not None:
            wrong |= (target < 0) | (target >= C)
            target = target.clamp(0, C - 1)
        target_logit = logits.gather(1, target).to(soft_loss.dtype)
        anchor = torch.maximum(anchor, target_logit)
    anchor.nan_to_num_(nan=math.nan, posinf=math.inf, neginf=0.0)
    if wrong is not None:
        anchor.masked_fill_(wrong, math.nan)
    kept = kept.sub_(anchor)
    if T != 1:
        kept.div_(T)
    if target_logit is not None:
        target_logit = target_logit.sub_(anchor)
    log_prob = _log_teacher(targets, classes, origin, without_soft, dtype=kept.dtype)
    soft = _factor(targets, T * targets.soft_weight * grad_scale, scale_tensor, without_soft, kept)
    hard = None
    if target is not None:
        factor = _factor(targets, targets.hard_weight * grad_scale, scale_tensor, ignored, kept)
        hard = factor if isinstance(factor, Tensor) else kept.new_full((len(kept), 1), factor)
    if without_soft is not None:
        # Without either part a row is not looked at.
        dead = without_soft if ignored is None else without_soft & ignored
    return Rows(
        logits=logits,
        out=out,
        soft_loss=soft_loss,
        hard_loss=hard_loss,
        anchor=anchor,
        classes=classes,
        kept=kept,
        prob=log_prob.exp(),
        log_prob=log_prob,
        others=_others(targets, origin, kept),
        origin=origin,
        soft=soft,
        hard=hard,
        target=target,
        target_logit=target_logit,
        without_soft=without_soft,
        without_hard=ignored,
        dead=dead,
    )


def _target(targets: Targets, dead: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """[B, 1] targets, 0 where ignored, and [B] which are ignored; both None without."""
    if targets.target is None:
        return None, None
    ignored = targets.target == targets.ignore_index
    if dead is not None:
        ignored |= dead
    target = targets.target.long().masked_fill(ignored, 0)
    if is_readable(target):
        low, high = (int(end) for end in target.aminmax())
        if low < 0 or high >= targets.num_classes:
            raise IndexError(
                f"target {low if low < 0 else high} is neither in [0, {targets.num_classes}) "
                f"nor ignore_index {targets.ignore_index}"
            )
    return target[:, None], ignored


def _classes(
    targets: Targets, dead: Tensor | None, target: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """[B, K] classes, [B] rows without any, and [B, K] the entry that each entry repeats.

    An entry that does not exist repeats the row's first that does. A row without any gets one
    entry, for which the target is as good as any other class. Both masks are None if all exist.
    """
    classes = targets.topk_class.long()
    if targets.soft_weight == 0 or classes.shape[1] == 0:
        classes = classes.new_full((len(classes), 1), -1)
    elif dead is not None:
        classes = classes.masked_fill(dead[:, None], -1)
    if is_readable(classes):
        low, high = (int(end) for end in classes.aminmax())
        if high >= targets.num_classes:
            raise IndexError(f"class {high} is stored, num_classes is {targets.num_classes}")
        if low >= 0:
            return classes, None, None
    exists = classes >= 0
    first = exists.to(torch.int8).argmax(dim=1, keepdim=True)
    entry = torch.arange(classes.shape[1], device=classes.device)
    origin = torch.where(exists, entry, first)
    classes = classes.gather(1, origin)
    any_class = torch.zeros_like(classes[:, :1]) if target is None else target
    return torch.where(classes >= 0, classes, any_class), ~exists.any(dim=1), origin


def _is_own(origin: Tensor) -> Tensor:
    """[B, K] which entries repeat no other."""
    return origin == torch.arange(origin.shape[1], device=origin.device)


def _log_teacher(
    targets: Targets,
    classes: Tensor,
    origin: Tensor | None,
    without_soft: Tensor | None,
    *,
    dtype: torch.dtype,
) -> Tensor:
    """[B, K + 1] log probabilities of the K stored classes and of the tail."""
    (B, K), tail = classes.shape, targets.tail_lse
    if targets.soft_weight == 0 or targets.topk_logit.shape[1] == 0:
        return torch.zeros(B, K + 1, dtype=dtype, device=classes.device)
    scaled = targets.topk_logit.to(dtype)
    if targets.temperature != 1:
        scaled = scaled / targets.temperature
    if origin is not None:
        scaled = scaled.masked_fill(~_is_own(origin), -math.inf)
    log_tail = scaled.new_full((B, 1), -math.inf) if tail is None else tail.to(dtype)[:, None]
    scaled = torch.cat([scaled, log_tail], dim=1)
    if without_soft is not None:
        # Whatever is finite: the factor is 0.
        scaled.masked_fill_(without_soft[:, None], 0.0)
    return torch.log_softmax(scaled, dim=1)


def _factor(
    targets: Targets,
    factor: float,
    scale_tensor: Tensor | None,
    absent: Tensor | None,
    like: Tensor,
) -> Tensor | float:
    """factor * weight * scale_tensor, 0 where absent; [B, 1], or a number if that is all of it."""
    if targets.weight is None and scale_tensor is None and absent is None:
        return factor
    rows = like.new_full((len(like), 1), factor)
    if targets.weight is not None:
        rows.mul_(targets.weight[:, None])
    if scale_tensor is not None:
        rows.mul_(scale_tensor)
    return rows if absent is None else rows.masked_fill_(absent[:, None], 0.0)


def _others(targets: Targets, origin: Tensor | None, like: Tensor) -> Tensor | int:
    if origin is None:
        return max(1, targets.num_classes - targets.topk_class.shape[1])
    stored = _is_own(origin).sum(dim=1, keepdim=True)
    return (targets.num_classes - stored).clamp_(min=1).to(like.dtype)
