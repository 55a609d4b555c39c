"""One problem to measure: logits, a teacher's stored labels, and the exact answer.

B rows of C classes in W columns, K stored classes a row.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import reference
from softlabel.kernels.sparse_kl.targets import Targets
from softlabel.tools.bench.kernel.config import Device, KernelBench, Tail, padded

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_SPREAD = 3.0
"""Standard deviation of the logits: a teacher that is sure of some rows and not of others."""


class Labels(NamedTuple):
    """A teacher's stored rows, and how the loss is to read them."""

    relative: Tensor
    """[B, K] float16 logits, relative to the row's largest"""
    classes: Tensor
    """[B, K] int32"""
    long_classes: Tensor
    """The same as int64: peers need it, and are spared the conversion"""
    tail_lse: Tensor | None
    """[B] float32; None where the rule does not ask for it"""
    target: Tensor | None
    """[B] int64; None without a hard part"""
    tail: Tail
    temperature: float
    hard: float


@dataclass(frozen=True)
class Case:
    """Inputs of all contestants. What is random is drawn anew for each seed."""

    bench: KernelBench
    pristine: Tensor
    """[B, W] logits, never written"""
    work: Tensor
    """[B, W] copy of `pristine` that our kernel is given and may overwrite"""
    compact: Tensor
    """[B, C] the same logits without padding, for peers"""
    labels: Labels

    @property
    def device(self) -> torch.device:
        return self.pristine.device

    @property
    def minimal_bytes(self) -> int:
        """One read of the logits, one write of their gradient, one read of the labels."""
        labels = self.labels
        given = (labels.relative, labels.classes, labels.tail_lse, labels.target)
        label_bytes = sum(t.numel() * t.element_size() for t in given if t is not None)
        return 2 * self.compact.numel() * self.compact.element_size() + label_bytes

    def restore(self) -> None:
        """Logits as they were before a contestant worked in place."""
        self.work.copy_(self.pristine)


def chosen_device(name: Device) -> torch.device:
    """The device that --device means here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for and torch finds none; use --device cpu")
    return torch.device(name)


def make_case(bench: KernelBench, *, seed: int = 0) -> Case:
    """Random logits of a student and the labels of an unrelated teacher."""
    device = chosen_device(bench.device)
    generator = torch.Generator(device).manual_seed(seed)
    B, C = bench.rows, bench.classes
    labels = _labels(bench, generator)
    student = _SPREAD * torch.randn(B, C, generator=generator, device=device)
    compact = student.to(DTYPES[bench.dtype])
    del student
    # What the padding holds must not matter; zeros would hide it if it did.
    pristine = torch.full((B, bench.width or padded(C)), 7.0, dtype=compact.dtype, device=device)
    pristine[:, :C] = compact
    return Case(bench, pristine, pristine.clone(), compact, labels)


def _labels(bench: KernelBench, generator: torch.Generator) -> Labels:
    B, C = bench.rows, bench.classes
    device = generator.device
    teacher = _SPREAD * torch.randn(B, C, generator=generator, device=device)
    top, index = teacher.topk(bench.top_k, dim=1)
    tail_lse = None
    if bench.tail not in ("renorm", "subset"):
        others = teacher.scatter_(1, index, float("-inf")).sub_(top[:, :1])
        tail_lse = torch.logsumexp(others.div_(bench.temperature), dim=1)
    target = None
    if bench.hard:
        target = torch.randint(0, C, (B,), generator=generator, device=device)
    relative = (top - top[:, :1]).half()
    return Labels(
        relative, index.int(), index, tail_lse, target, bench.tail, bench.temperature, bench.hard
    )


class Answer(NamedTuple):
    """Float64 loss and gradient of some rows."""

    rows: Tensor
    loss: Tensor
    """[R]"""
    grad: Tensor
    """[R, C] of the mean loss over all B rows"""


def exact_answer(case: Case, *, most_rows: int = 128) -> Answer:
    """What every contestant should find, for rows spread over the batch, its ends among them."""
    B = len(case.compact)
    rows = torch.linspace(0, B - 1, min(B, most_rows), device=case.device).round().long()
    logits = case.compact[rows].double().requires_grad_()
    loss = reference.sparse_kl(logits, targets(case, rows)).total
    (grad,) = torch.autograd.grad(loss.sum() / B, logits)
    return Answer(rows, loss.detach(), grad)


def targets(case: Case, rows: Tensor | slice = slice(None)) -> Targets:
    """The labels of some rows as the kernels' own record."""
    labels = case.labels

    def some(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[rows]

    return Targets(
        topk_logit=labels.relative[rows],
        topk_class=labels.classes[rows],
        tail_lse=some(labels.tail_lse),
        target=some(labels.target),
        weight=None,
        temperature=labels.temperature,
        tail=labels.tail,
        num_classes=case.bench.classes,
        soft_weight=1.0,
        hard_weight=labels.hard,
        label_smoothing=0.0,
        ignore_index=-100,
    )
