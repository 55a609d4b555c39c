"""sparse_kl in torch operations: no dense teacher, the gradient written by hand, no extra memory.

B rows of W columns, the first C of them classes; K classes stored per row. The classes not stored
count as one more event, the tail, so that a row is a KL over K + 1 events:

    stored class i    d loss / d z_i = T (q_i - p_i)
    any other c       d loss / d z_c = T (q_tail - r) s_c           bucket; renorm, where r = 0
                                       T (q_tail s_c - r / (C - K))  uniform

s is the student's softmax within the tail, q_tail the tail's mass under it, r under the teacher.
No sum is got by subtraction: however small the student's tail is, its logarithm comes out right.
"""

import math

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl.targets import Targets

_CHUNK_BYTES = 2 << 20
"""Rows are worked on this much at a time, so that they stay in cache between the passes."""


def sparse_kl_grad(logits: Tensor, targets: Targets, *, grad_scale: float, out: Tensor) -> Tensor:
    """Row losses; the gradient of `grad_scale * sum` goes to `out`, which may be `logits`."""
    T, C, weight = targets.temperature, targets.num_classes, targets.weight
    dtype = torch.promote_types(logits.dtype, torch.float32)
    dead = None if weight is None else weight == 0
    classes = _class_ids(targets, dead, width=logits.shape[1])
    kept = logits.gather(1, classes).to(dtype)
    # Relative logits lose no digits in the logarithms below, wherever a row may lie.
    anchor = kept.amax(dim=1, keepdim=True)
    kept = kept.sub_(anchor).div_(T)
    log_teacher = _log_teacher(targets, dtype)
    prob = log_teacher.exp()
    scale = kept.new_full((len(kept), 1), T * grad_scale)
    if weight is not None:
        scale *= weight[:, None]

    spread = None
    if classes.shape[1] == C:
        log_student = torch.log_softmax(kept, dim=1)
        grad = (log_student.exp() - prob).mul_(scale)
        _fill_padding(out, C, 0.0)
        out.scatter_(1, classes, grad.to(out.dtype))
    else:
        log_student, spread = _tail_and_grad(
            logits, anchor, kept, classes, prob, scale, targets, out
        )

    # Where p is 0 its term is 0, also if both logarithms are -inf.
    lowest = torch.finfo(dtype).min
    ratio = log_teacher.clamp_min_(lowest).sub_(log_student.clamp_min_(lowest))
    row_loss = ratio.mul_(prob).sum(dim=1)
    if spread is not None:
        r = prob[:, -1]
        row_loss += torch.where(r > 0, r * spread[:, 0], 0.0)
    row_loss *= T**2
    if weight is not None and dead is not None:
        row_loss = (row_loss * weight).masked_fill_(dead, 0.0)
        out.index_fill_(0, dead.nonzero()[:, 0], 0.0)
    return row_loss


def _tail_and_grad(
    logits: Tensor,
    anchor: Tensor,
    kept: Tensor,
    classes: Tensor,
    prob: Tensor,
    scale: Tensor,
    targets: Targets,
    out: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Write the gradient; return the student's log [B, K + 1] and, for uniform, the inner KL.

    The inner KL is that of the uniform distribution to `s`: what uniform costs above bucket.
    """
    (B, W), K, C = logits.shape, kept.shape[1], targets.num_classes
    uniform, lowest = targets.tail == "uniform", torch.finfo(kept.dtype).min
    rows = max(1, _CHUNK_BYTES // (W * kept.element_size()))
    in_place = out.dtype == kept.dtype and out.is_contiguous()
    scratch = None if in_place else kept.new_empty(min(rows, B), W)
    log_student, spread = torch.empty_like(prob), kept.new_empty(B, 1)
    whole = (logits, anchor, out, classes, kept, prob, scale, log_student, spread)
    # A small batch is spared the splitting: it would cost more than the arithmetic.
    parts = (whole,) if rows >= B else zip(*(torch.split(t, rows) for t in whole), strict=True)
    for z, origin, g, ids, stored, p, factor, log_q, inner in parts:
        x = g if scratch is None else scratch[: len(z)]
        torch.sub(z, origin, out=x)
        if targets.temperature != 1:
            x.div_(targets.temperature)
        if uniform:
            x.scatter_(1, ids, 0.0)
            torch.mean(x[:, :C], dim=1, keepdim=True, out=inner)
        # Finite, so that a row whose other logits are all -inf has a softmax.
        x.scatter_(1, ids, lowest)
        _fill_padding(x, C, lowest)
        peak = x.amax(dim=1, keepdim=True)
        s = torch.softmax(x, dim=1, out=x)
        log_tail = peak - s.amax(dim=1, keepdim=True).log_()
        torch.log_softmax(torch.cat([stored, log_tail], dim=1), dim=1, out=log_q)
        q = log_q.exp()
        grad = (q - p).mul_(factor)
        if uniform:
            inner.mul_(-C / (C - K)).add_(log_tail - math.log(C - K))
            s.mul_(q[:, K:] * factor).sub_(p[:, K:] * factor / (C - K))
        else:
            s.mul_(grad[:, K:])
        s.scatter_(1, ids, grad)
        _fill_padding(s, C, 0.0)
        if scratch is not None:
            g.copy_(s)
    return log_student, spread if uniform else None


def _fill_padding(rows: Tensor, C: int, value: float) -> None:
    if rows.shape[1] > C:
        rows[:, C:] = value


def _log_teacher(targets: Targets, dtype: torch.dtype) -> Tensor:
    """Log probabilities of the K stored classes and, if there are others, of the tail."""
    scaled = targets.topk_logit.to(dtype) / targets.temperature
    if scaled.shape[1] < targets.num_classes:
        tail = targets.tail_lse
        log_tail = scaled.new_full((len(scaled),), -math.inf) if tail is None else tail.to(dtype)
        scaled = torch.cat([scaled, log_tail[:, None]], dim=1)
    return torch.log_softmax(scaled, dim=1)


def _class_ids(targets: Targets, dead: Tensor | None, *, width: int) -> Tensor:
    """The stored classes as indices; those of rows that do not count may be anything."""
    classes = targets.topk_class.long()
    if dead is not None:
        classes = classes.masked_fill(dead[:, None], 0)
    if width > targets.num_classes and classes.device.type == "cpu":
        # `gather` itself refuses what lies beyond the padding.
        largest = int(classes.max())
        if largest >= targets.num_classes:
            raise IndexError(f"class {largest} is stored, num_classes is {targets.num_classes}")
    return classes
