"""What sparse_kl means. Every faster implementation is tested against this file.

It computes in the dtype of `logits`: pass float64 for exact values. R rows of C classes below.
"""

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl.losses import RowLosses
from softlabel.kernels.sparse_kl.targets import Targets


def sparse_kl(logits: Tensor, targets: Targets) -> RowLosses:
    """[B] losses of logits [B, W], differentiable in `logits`; no part is detached.

    A row of weight 0 is not looked at, nor is one without a stored class for the soft part, nor
    one without a target for the hard part.
    """
    z = logits[:, : targets.num_classes]
    weight = torch.ones_like(z[:, 0]) if targets.weight is None else targets.weight.to(z.dtype)
    # Zeros that depend on z: also where nothing is computed there is a gradient, of 0.
    soft = hard = z[:0].sum().expand(len(z))
    if targets.soft_weight:
        rows = (weight != 0) & (targets.topk_class.long() >= 0).any(dim=1)
        soft = soft.index_put((rows,), weight[rows] * _soft(z[rows], targets, rows))
    if targets.target is not None and targets.hard_weight:
        rows = (weight != 0) & (targets.target != targets.ignore_index)
        label = targets.target.long()[rows]
        cross_entropy = _hard(z[rows], label, targets.label_smoothing)
        hard = hard.index_put((rows,), weight[rows] * cross_entropy)
    return RowLosses(targets.soft_weight * soft + targets.hard_weight * hard, soft, hard)


def _soft(z: Tensor, targets: Targets, rows: Tensor) -> Tensor:
    """[R] T**2 * KL(teacher || student) of the chosen rows of targets; z is [R, C]."""
    T, C, tail = targets.temperature, targets.num_classes, targets.tail
    classes = targets.topk_class.long()[rows]
    if bool((classes >= C).any()):
        raise IndexError(f"class {int(classes.max())} is stored, num_classes is {C}")
    exists = classes >= 0
    # Entries that do not exist go to a column of their own, which is then cut off.
    column = torch.where(exists, classes, C)
    spare = z.new_zeros(len(z), C + 1)
    stored = spare.bool().scatter(1, column, True)[:, :C]

    scaled = (targets.topk_logit[rows].to(z.dtype) / T).masked_fill(~exists, -torch.inf)
    log_total = torch.logsumexp(scaled, dim=1)
    tail_mass = torch.zeros_like(log_total)
    if targets.tail_lse is not None:
        log_tail = targets.tail_lse[rows].to(z.dtype)
        log_total = torch.logaddexp(log_total, log_tail)
        tail_mass = torch.exp(log_tail - log_total)
    teacher = spare.scatter(1, column, torch.exp(scaled - log_total[:, None]))[:, :C]

    if tail == "subset":
        log_student = torch.log_softmax((z / T).masked_fill(~stored, -torch.inf), dim=1)
    else:
        log_student = torch.log_softmax(z / T, dim=1)
    if tail == "uniform":
        others = (~stored).sum(dim=1)
        teacher = torch.where(stored, teacher, (tail_mass / others)[:, None])
    loss = _kl(teacher, log_student).sum(dim=1)
    if tail == "bucket":
        log_student_tail = torch.logsumexp(log_student.masked_fill(stored, -torch.inf), dim=1)
        loss = loss + _kl(tail_mass, log_student_tail)
    return T**2 * loss


def _hard(z: Tensor, label: Tensor, smoothing: float) -> Tensor:
    """[R] cross-entropy with (1 - smoothing) * onehot(label) + smoothing / C, at temperature 1."""
    log_student = torch.log_softmax(z, dim=1)
    loss = -(1 - smoothing) * log_student.gather(1, label[:, None])[:, 0]
    return loss - smoothing * log_student.mean(dim=1) if smoothing else loss


def _kl(prob: Tensor, log_student: Tensor) -> Tensor:
    """The terms p (log p - log q), with 0 where p is 0, whatever q is."""
    return torch.where(prob == 0, 0.0, torch.xlogy(prob, prob) - prob * log_student)
