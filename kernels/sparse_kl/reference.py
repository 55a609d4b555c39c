"""What sparse_kl means. Every faster implementation is tested against this file.

It computes in the dtype of `logits`: pass float64 for exact values.
"""

import torch
from torch import Tensor


def sparse_kl(
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    *,
    weight: Tensor | None,
    temperature: float,
    tail: str,
    num_classes: int,
) -> Tensor:
    """Row losses, differentiable in `logits`; a row of weight 0 is not looked at."""
    live = torch.ones_like(topk_class[:, 0], dtype=torch.bool) if weight is None else weight != 0
    log_student = torch.log_softmax(logits[live, :num_classes] / temperature, dim=1)
    classes = topk_class.long()[live]
    stored = torch.zeros_like(log_student, dtype=torch.bool).scatter(1, classes, True)

    scaled = topk_logit[live].to(logits.dtype) / temperature
    total = torch.logsumexp(scaled, dim=1)
    tail_mass = torch.zeros_like(total)
    if tail_lse is not None:
        log_tail = tail_lse[live].to(logits.dtype)
        total = torch.logaddexp(total, log_tail)
        tail_mass = torch.exp(log_tail - total)
    prob = torch.exp(scaled - total[:, None])
    teacher = torch.zeros_like(log_student).scatter(1, classes, prob)

    if tail == "uniform":
        others = (~stored).sum(dim=1)
        teacher = torch.where(stored, teacher, (tail_mass / others)[:, None])
    row_loss = _kl(teacher, log_student).sum(dim=1)
    if tail == "bucket":
        log_student_tail = torch.logsumexp(log_student.masked_fill(stored, -torch.inf), dim=1)
        row_loss = row_loss + _kl(tail_mass, log_student_tail)

    row_loss = temperature**2 * row_loss
    if weight is not None:
        row_loss = row_loss * weight[live].to(logits.dtype)
    return torch.zeros_like(logits[:, 0]).index_put((live,), row_loss)


def _kl(prob: Tensor, log_student: Tensor) -> Tensor:
    """The terms p (log p - log q), with 0 where p is 0, whatever q is."""
    return torch.where(prob > 0, torch.xlogy(prob, prob) - prob * log_student, 0.0)
