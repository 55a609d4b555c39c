"""Other ways to write the loss: each takes [B, C] logits and labels, as a user would write it.

The dense ones rebuild the teacher's whole row, because that is what they can be given.
"""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from softlabel.tools.bench.kernel.case import Labels

Loss = Callable[[Tensor, Labels], Tensor]

DENSE_TAILS = ("uniform", "renorm", "truncate")
"""What a distribution over the classes can express; bucket and subset are none."""


def dense_kl_div(logits: Tensor, labels: Labels) -> Tensor:
    """[B] loss by `F.kl_div` with the dense teacher rebuilt."""
    T = labels.temperature
    z = logits.float()
    log_student = functional.log_softmax(z / T if T != 1 else z, dim=1)
    teacher = dense_teacher(labels, logits.shape[1])
    loss = T**2 * functional.kl_div(log_student, teacher, reduction="none").sum(dim=1)
    if labels.target is None:
        return loss
    log_plain = log_student if T == 1 else functional.log_softmax(z, dim=1)
    hard = functional.nll_loss(log_plain, labels.target, reduction="none")
    return loss + labels.hard * hard


def dense_cross_entropy(logits: Tensor, labels: Labels) -> Tensor:
    """[B] loss by `F.cross_entropy` with class probabilities, less the teacher's entropy."""
    T = labels.temperature
    z = logits.float()
    teacher = dense_teacher(labels, logits.shape[1])
    crossed = functional.cross_entropy(z / T if T != 1 else z, teacher, reduction="none")
    loss = T**2 * (crossed - _entropy(labels, logits.shape[1]))
    if labels.target is None:
        return loss
    hard = functional.cross_entropy(z, labels.target, reduction="none")
    return loss + labels.hard * hard


def liger_kl_div(logits: Tensor, labels: Labels) -> Tensor:
    """Mean loss by Liger's kl_div on a log_softmax and the dense teacher rebuilt."""
    kl_div = importlib.import_module("liger_kernel.transformers.functional").liger_kl_div
    T = labels.temperature
    z = logits.float()
    log_student = functional.log_softmax(z / T if T != 1 else z, dim=1)
    teacher = dense_teacher(labels, logits.shape[1])
    loss: Tensor = T**2 * kl_div(log_student, teacher, reduction="batchmean")
    if labels.target is None:
        return loss
    return loss + labels.hard * functional.cross_entropy(z, labels.target)


def dense_teacher(labels: Labels, num_classes: int) -> Tensor:
    """[B, C] float32 probabilities, the tail spread evenly or left out."""
    prob, tail_mass = _teacher(labels)
    spread = torch.zeros_like(tail_mass)
    if labels.tail == "uniform":
        spread = tail_mass / (num_classes - labels.long_classes.shape[1])
    return spread[:, None].expand(-1, num_classes).scatter(1, labels.long_classes, prob)


def _teacher(labels: Labels) -> tuple[Tensor, Tensor]:
    """[B, K] probabilities of the stored classes and [B] that of the others."""
    scaled = labels.relative.float() / labels.temperature
    log_total = torch.logsumexp(scaled, dim=1)
    if labels.tail_lse is None:
        return torch.exp(scaled - log_total[:, None]), torch.zeros_like(log_total)
    log_total = torch.logaddexp(log_total, labels.tail_lse)
    prob = torch.exp(scaled - log_total[:, None])
    return prob, torch.exp(labels.tail_lse - log_total)


def _entropy(labels: Labels, num_classes: int) -> Tensor:
    """[B] of `dense_teacher`, from what is stored: no pass over the dense rows."""
    prob, tail_mass = _teacher(labels)
    entropy: Tensor = torch.special.entr(prob).sum(dim=1)
    if labels.tail == "uniform":
        others = num_classes - labels.long_classes.shape[1]
        entropy = entropy + others * torch.special.entr(tail_mass / others)
    return entropy


def with_gradient(loss: Loss) -> Callable[[Tensor, Labels], tuple[Tensor, Tensor]]:
    """Loss, and the gradient of its mean through autograd."""

    def run(logits: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
        leaf = logits.detach().requires_grad_()
        found = loss(leaf, labels)
        (grad,) = torch.autograd.grad(found.mean(), leaf)
        return found.detach(), grad

    return run


def sparse_algebra(logits: Tensor, labels: Labels) -> tuple[Tensor, Tensor]:
    """[B] loss and the gradient of its mean, from the sums a row needs; no dense teacher.

    Functional and without autograd, so that a compiler sees all of it at once.
    """
    T = labels.temperature
    z = logits.float()
    scaled = z / T if T != 1 else z
    lse = torch.logsumexp(scaled, dim=1, keepdim=True)
    prob, tail_mass = _teacher(labels)
    log_prob = torch.log(prob)
    log_student = torch.log_softmax(scaled, dim=1) if labels.tail == "subset" else scaled - lse
    chosen = log_student.gather(1, labels.long_classes)
    factor = torch.ones_like(lse)
    shift = torch.zeros_like(lse)
    kept = torch.ones_like(lse)
    if labels.tail == "subset":
        chosen = torch.log_softmax(chosen, dim=1)
        factor = torch.zeros_like(lse)
    loss = (prob * (log_prob - chosen)).sum(dim=1)
    if labels.tail == "uniform":
        others = logits.shape[1] - labels.long_classes.shape[1]
        share = tail_mass / others
        rest = log_student.sum(dim=1) - chosen.sum(dim=1)
        loss = loss + torch.special.xlogy(tail_mass, share) - share * rest
        shift = share[:, None]
    elif labels.tail == "bucket":
        masked = log_student.scatter(1, labels.long_classes, float("-inf"))
        log_rest = torch.logsumexp(masked, dim=1)
        loss = loss + torch.special.xlogy(tail_mass, tail_mass) - tail_mass * log_rest
        factor = 1 - (tail_mass / log_rest.exp())[:, None]
    elif labels.tail == "truncate":
        kept = prob.sum(dim=1, keepdim=True)
        factor = kept
    loss = T**2 * loss
    scale = T / len(logits)
    dense = (scale * factor) * log_student.exp() - scale * shift
    entries = scale * (kept * chosen.exp() - prob)
    if labels.target is None:
        dense, entries = dense.to(logits.dtype), entries.to(logits.dtype)
        return loss, dense.scatter(1, labels.long_classes, entries)
    log_plain = scaled - lse if T == 1 else torch.log_softmax(z, dim=1)
    label = labels.target[:, None]
    loss = loss - labels.hard * log_plain.gather(1, label)[:, 0]
    hard = labels.hard / len(logits)
    dense = dense + hard * log_plain.exp()
    entries = entries + hard * log_plain.gather(1, labels.long_classes).exp()
    grad = dense.scatter(1, labels.long_classes, entries)
    # Added in float32: a label's entry that is read back from bfloat16 would lose its digits.
    return loss, grad.scatter_add(1, label, torch.full_like(lse, -hard)).to(logits.dtype)
