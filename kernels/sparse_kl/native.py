"""sparse_kl in torch operations: no dense teacher, the gradient written by hand, no extra memory.

B rows of W columns, the first C of them classes; K classes stored per row, n of which exist. The
classes not stored count as one more event, the tail, so that a row is a divergence over K + 1
events. Per T and row weight the soft gradient is

    stored class i    P q_i - p_i
    any other c       (q_tail - r) s_c              bucket; renorm, where r = 0
                      q_tail s_c - r / (C - n)      uniform
                      P q_tail s_c                  truncate
                      0                             subset, whose q is over the stored classes

s is the student's softmax within the tail, q_tail the tail's mass under it, r under the teacher;
P is the stored classes' mass for truncate and 1 else. The hard gradient is q at temperature 1 less
smoothing / C everywhere, less 1 - smoothing at the target.

No sum is got by subtraction: however small the student's tail is, its logarithm comes out right.
"""

import math

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import native_rows
from softlabel.kernels.sparse_kl.native_rows import Rows, prepared
from softlabel.kernels.sparse_kl.targets import Targets

_CHUNK_BYTES = 2 << 20
"""Rows are worked on this much at a time, so that they stay in cache between the passes."""

_CHUNK_BYTES_CUDA = 64 << 20
"""The same on a GPU, where a chunk also has to be worth its launches."""


def sparse_kl_grad(
    logits: Tensor,
    targets: Targets,
    *,
    grad_scale: float,
    scale_tensor: Tensor | None,
    out: Tensor,
) -> Tensor:
    """[3, B] total, soft and hard losses; the gradient goes to `out`, which may be `logits`.

    The gradient is that of `grad_scale * scale_tensor * total.sum()`. Nothing is read back from a
    GPU; on the CPU a class or target that does not exist is an IndexError.
    """
    (B, W), T = logits.shape, targets.temperature
    dtype = torch.promote_types(logits.dtype, torch.float32)
    losses = torch.zeros(3, B, dtype=dtype, device=logits.device)
    if B == 0:
        return losses
    total, soft, hard = losses.unbind()
    rows = prepared(logits, out, soft, hard, targets, grad_scale, scale_tensor)
    if targets.tail == "subset" and rows.hard is None:
        _subset(rows)
    else:
        step = max(
            1, (_CHUNK_BYTES_CUDA if logits.is_cuda else _CHUNK_BYTES) // (W * dtype.itemsize)
        )
        shape = (min(step, B), W)
        direct = out.dtype == dtype and out.is_contiguous()
        scratch = None if direct else torch.empty(shape, dtype=dtype, device=logits.device)
        two = rows.hard is not None and T != 1
        second = torch.empty(shape, dtype=dtype, device=logits.device) if two else None
        # A small batch is spared the splitting: it would cost more than the arithmetic.
        parts = [rows] if step >= B else [rows.part(b, b + step) for b in range(0, B, step)]
        for part in parts:
            _passes(part, targets, scratch, second)
    _finish(rows, targets, total, soft, hard)
    return losses


def _passes(rows: Rows, targets: Targets, scratch: Tensor | None, second: Tensor | None) -> None:
    """All passes over the columns of some rows: their losses and gradients."""
    C, T, smoothing = targets.num_classes, targets.temperature, targets.label_smoothing
    lowest = torch.finfo(rows.kept.dtype).min
    x = rows.out if scratch is None else scratch[: len(rows.logits)]
    torch.sub(rows.logits, rows.anchor, out=x)
    _fill_padding(x, C, lowest)
    mean = x[:, :C].mean(dim=1, keepdim=True) if rows.hard is not None and smoothing else None
    if second is not None:
        second = torch.softmax(x, dim=1, out=second[: len(x)])
        _hard_loss(rows, _log_sum(x, second), mean, smoothing)
    if T != 1:
        x.div_(T)
    others = None
    if targets.tail == "uniform":
        x.scatter_(1, rows.classes, 0.0)
        others = x[:, :C].sum(dim=1, keepdim=True)
    # Finite, so that a row whose other logits are all -inf has a softmax.
    x.scatter_(1, rows.classes, lowest)
    peak = x.amax(dim=1, keepdim=True)
    s = torch.softmax(x, dim=1, out=x)
    log_tail = peak.sub_(s.amax(dim=1, keepdim=True).log_())
    stored, tail, constant = _events(
        rows, targets, log_tail, others, mean, with_hard=second is None
    )
    s.mul_(tail)
    if constant is not None:
        s.sub_(constant)
    s.scatter_(1, rows.classes, stored)
    if rows.hard is not None and rows.target is not None:
        if second is not None:
            s.add_(second.mul_(rows.hard))
        s.scatter_add_(1, rows.target, rows.hard * (smoothing - 1))
    _fill_padding(s, C, 0.0)
    if scratch is not None:
        rows.out.copy_(s)


def _events(
    rows: Rows,
    targets: Targets,
    log_tail: Tensor,
    others: Tensor | None,
    mean: Tensor | None,
    *,
    with_hard: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Add the losses of K + 1 events; return what the gradient is made of.

    The gradient is [B, K or more] `stored` at the stored classes, and [B, 1] `tail` times the
    softmax within the tail less [B, 1] `constant` elsewhere.
    """
    K, C, smoothing = rows.classes.shape[1], targets.num_classes, targets.label_smoothing
    p, soft, constant = rows.prob, rows.soft, None
    events = torch.cat([rows.kept, log_tail], dim=1)
    log_q = torch.log_softmax(events, dim=1)
    q = log_q.exp()
    if targets.tail == "subset":
        log_q = torch.log_softmax(rows.kept, dim=1)
        stored = (log_q.exp() - p[:, :K]).mul_(soft)
        tail = torch.zeros_like(log_tail)
    elif targets.tail == "truncate":
        mass = p[:, :K].sum(dim=1, keepdim=True)
        stored = (q * mass).sub_(p).mul_(soft)
        tail = q[:, K:] * mass * soft
    else:
        stored = (q - p).mul_(soft)
        tail = stored[:, K:]
    if targets.tail in ("truncate", "subset"):
        rows.soft_loss.add_(_divergence(p[:, :K], rows.log_prob[:, :K], log_q[:, :K]))
    else:
        rows.soft_loss.add_(_divergence(p, rows.log_prob, log_q))
    if others is not None:
        left = rows.others
        r = p[:, K:]
        log_left = torch.log(left) if isinstance(left, Tensor) else math.log(left)
        spread = log_tail - others / left - log_left
        rows.soft_loss.add_((r * spread).masked_fill_(r == 0, 0.0)[:, 0])
        tail = q[:, K:] * soft
        constant = r * soft / left
    if rows.hard is not None:
        if with_hard:
            _hard_loss(rows, torch.logsumexp(events, dim=1, keepdim=True), mean, smoothing)
            q = q * rows.hard
            stored = stored + q[:, : stored.shape[1]]
            tail = tail + q[:, K:]
        if smoothing:
            even = rows.hard * (smoothing / C)
            stored = stored - even
            constant = even if constant is None else constant + even
    return stored if rows.origin is None else stored.gather(1, rows.origin), tail, constant


def _subset(rows: Rows) -> None:
    """The rule that looks at no other class."""
    K = rows.classes.shape[1]
    log_q = torch.log_softmax(rows.kept, dim=1)
    stored = (log_q.exp() - rows.prob[:, :K]).mul_(rows.soft)
    rows.soft_loss.add_(_divergence(rows.prob[:, :K], rows.log_prob[:, :K], log_q))
    if rows.origin is not None:
        stored = stored.gather(1, rows.origin)
    rows.out.zero_().scatter_(1, rows.classes, stored.to(rows.out.dtype))


def _divergence(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    """[B] sums of p (log p - log q), with 0 where p is 0, whatever q is."""
    return (log_p - log_q).mul_(p).masked_fill_(p == 0, 0.0).sum(dim=1)


def _log_sum(x: Tensor, softmax: Tensor) -> Tensor:
    """[B, 1] logsumexp of what the softmax was taken of: at the maximum it is x - log softmax."""
    return x.amax(dim=1, keepdim=True) - softmax.amax(dim=1, keepdim=True).log_()


def _hard_loss(rows: Rows, log_sum: Tensor, mean: Tensor | None, smoothing: float) -> None:
    if rows.target_logit is None:
        return
    loss = log_sum - rows.target_logit
    if mean is not None:
        loss = loss.mul_(1 - smoothing).add_(log_sum - mean, alpha=smoothing)
    rows.hard_loss.add_(loss[:, 0])


def _fill_padding(rows: Tensor, C: int, value: float) -> None:
    if rows.shape[1] > C:
        rows[:, C:] = value


def _finish(rows: Rows, targets: Targets, total: Tensor, soft: Tensor, hard: Tensor) -> None:
    """What holds for whole rows: T**2, row weights, rows without one part or without both."""
    if targets.temperature != 1:
        soft.mul_(targets.temperature**2)
    for loss, absent in ((soft, rows.without_soft), (hard, rows.without_hard)):
        if targets.weight is not None:
            loss.mul_(targets.weight)
        if absent is not None:
            loss.masked_fill_(absent, 0.0)
    torch.mul(soft, targets.soft_weight, out=total)
    if rows.hard is not None:
        total.add_(hard, alpha=targets.hard_weight)
    if rows.dead is None:
        return
    if native_rows.is_readable(rows.out):
        rows.out.index_fill_(0, rows.dead.nonzero()[:, 0], 0.0)
    else:
        rows.out.masked_fill_(rows.dead[:, None], 0.0)
