"""Problems over all forms of the kernel, and the check of one against float64.

B rows of C classes in W columns, K stored classes a row.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import reference, sparse_kl_grad
from softlabel.kernels.sparse_kl.losses import RowLosses
from softlabel.kernels.sparse_kl.op import Backend
from softlabel.kernels.sparse_kl.targets import Tail, Targets, checked_targets
from softlabel.tools.bench.kernel.case import DTYPES


class Given(NamedTuple):
    """One problem."""

    rows: int
    classes: int
    width: int
    top_k: int
    tail: Tail
    temperature: float
    hard_weight: float
    smoothing: float
    weighted: bool
    dtype: str
    soft_weight: float = 0.7
    """0 leaves class labels alone."""

    @property
    def name(self) -> str:
        hard = f" hard {self.hard_weight:g}/{self.smoothing:g}" if self.hard_weight else ""
        return (
            f"{self.rows}x{self.classes}/{self.width} k{self.top_k} {self.tail} "
            f"T{self.temperature:g}{hard}{' weighted' if self.weighted else ''} {self.dtype}"
            f"{'' if self.soft_weight else ' labels only'}"
        )


# Rows, classes, columns, stored classes. Every form, and both sides of every border.
_SHAPES = (
    (67, 10, 10, 4),
    (67, 100, 104, 16),
    (35, 256, 256, 256),
    (35, 1000, 1024, 16),
    (17, 1000, 1000, 50),
    (9, 8000, 8000, 16),
    (7, 21_841, 21_888, 50),
    (7, 21_841, 21_841, 16),
    (5, 32_000, 32_000, 100),
    (5, 32_769, 32_832, 16),
    (3, 151_936, 151_936, 100),
)
_TINY_SHAPES = ((5, 10, 10, 4), (9, 100, 104, 7), (3, 300, 320, 16), (2, 600, 600, 600))
# Tail, temperature, weight of the hard part, smoothing, weighted rows, weight of the soft part.
_FEATURES: tuple[tuple[Tail, float, float, float, bool, float], ...] = (
    ("uniform", 1.0, 0.5, 0.0, False, 0.7),
    ("bucket", 1.0, 0.0, 0.0, True, 0.7),
    ("bucket", 4.0, 0.5, 0.1, True, 0.7),
    ("renorm", 4.0, 0.0, 0.0, False, 0.7),
    ("truncate", 2.5, 0.7, 0.0, True, 0.7),
    ("subset", 2.0, 0.5, 0.1, True, 0.7),
    ("subset", 2.0, 0.0, 0.0, True, 0.7),
    ("bucket", 1.0, 0.5, 0.1, True, 0.0),
)


def cases(*, tiny: bool = False) -> Iterator[Given]:
    """Shapes by features; the dtype goes round."""
    for i, (rows, classes, width, top_k) in enumerate(_TINY_SHAPES if tiny else _SHAPES):
        for j, (tail, temperature, hard, smoothing, weighted, soft) in enumerate(_FEATURES):
            yield Given(
                rows=rows,
                classes=classes,
                width=width,
                top_k=top_k,
                tail=tail,
                temperature=temperature,
                hard_weight=hard,
                smoothing=smoothing,
                weighted=weighted,
                dtype=("bf16", "fp32", "fp16")[(i + j) % 3],
                soft_weight=soft,
            )


class Problem(NamedTuple):
    """A problem's tensors."""

    logits: Tensor
    targets: Targets


def draw(given: Given, device: str, seed: int) -> Problem:
    """Random logits and labels; padding holds 99, some entries and targets do not exist."""
    generator = torch.Generator(device).manual_seed(seed)
    B, C, K = given.rows, given.classes, given.top_k

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    logits = torch.full((B, given.width), 99.0, dtype=DTYPES[given.dtype], device=device)
    logits[:, :C] = 3 * normal(B, C)
    top, index = (3 * normal(B, C)).topk(K, dim=1)
    classes = index.int()
    if K > 1:
        # The last rows lack entries, the very last has none.
        classes[-2:, K // 2 :] = -1
        classes[-1] = -1
    target = torch.randint(0, C, (B,), generator=generator, device=device)
    target[0] = index[0, 0]
    target[B // 2] = -100
    weight = torch.rand(B, generator=generator, device=device) + 0.5
    weight[B // 3] = 0
    return Problem(
        logits,
        Targets(
            topk_logit=(top - top[:, :1]).half(),
            topk_class=classes,
            tail_lse=2 * normal(B) if given.tail not in ("renorm", "subset") else None,
            target=target if given.hard_weight else None,
            weight=weight if given.weighted else None,
            temperature=given.temperature,
            tail=given.tail,
            num_classes=C,
            soft_weight=given.soft_weight,
            hard_weight=given.hard_weight,
            label_smoothing=given.smoothing,
            ignore_index=-100,
        ),
    )


def run(
    problem: Problem,
    *,
    backend: Backend,
    out: Tensor | None = None,
    grad_scale: float | Tensor = 1.0,
) -> tuple[RowLosses, Tensor]:
    """The op under test; `out` None is a new buffer full of NaN."""
    targets = problem.targets
    if out is None:
        out = torch.full_like(problem.logits, float("nan"))
    losses, grad = sparse_kl_grad(
        problem.logits,
        targets.topk_logit,
        targets.topk_class,
        targets.tail_lse,
        temperature=targets.temperature,
        tail=targets.tail,
        target=targets.target,
        soft_weight=targets.soft_weight,
        hard_weight=targets.hard_weight,
        label_smoothing=targets.label_smoothing,
        ignore_index=targets.ignore_index,
        weight=targets.weight,
        num_classes=targets.num_classes,
        grad_scale=grad_scale,
        out=out,
        return_parts=True,
        backend=backend,
    )
    assert isinstance(losses, RowLosses)
    return losses, grad


def exact(problem: Problem) -> tuple[RowLosses, Tensor]:
    """Float64 losses and gradient [B, W] by the definition."""
    logits = problem.logits.double().requires_grad_()
    targets = checked_targets(problem.targets, logits.shape, logits.device)
    losses = reference.sparse_kl(logits, targets)
    (grad,) = torch.autograd.grad(losses.total.sum(), logits)
    return RowLosses(*(part.detach() for part in losses)), grad


# Of the entry itself: the rounding to the dtype, and of float32 that of the exponential's argument.
_RELATIVE = {"fp32": 2e-6, "bf16": 2.0**-8, "fp16": 2.0**-10}
_INTERPRETED = {"fp32": 2e-6, "bf16": 2.0**-7, "fp16": 2.0**-10}
_SUBNORMAL = {"fp32": 0.0, "bf16": 0.0, "fp16": 6e-8}


def check(
    given: Given, device: str, *, backend: Backend = "triton", seed: int = 0
) -> dict[str, float]:
    """The share of the error budget that losses and gradient take.

    Raises:
        AssertionError: more than all of it; something was not written; padding is not 0; in place
            is not out of place.
    """
    problem = draw(given, device, seed)
    want_losses, want_grad = exact(problem)
    losses, grad = run(problem, backend=backend, grad_scale=2.0)
    pad = grad[:, given.classes :]
    assert bool((pad == 0).all()), f"{given.name}: padding is not 0"
    shares = _shares(given, problem, want_losses, 2 * want_grad, losses, grad, device)
    for name, share in shares.items():
        assert share <= 1, f"{given.name}: error of {name} is {share:.2f} times its budget"
    work = problem.logits.clone()
    again, in_place = run(problem._replace(logits=work), backend=backend, out=work, grad_scale=2.0)
    same = same_bits(in_place, grad) and same_bits(again.total, losses.total)
    assert same, f"{given.name}: in place is not out of place"
    return shares


def _shares(
    given: Given,
    problem: Problem,
    want_losses: RowLosses,
    want_grad: Tensor,
    losses: RowLosses,
    grad: Tensor,
    device: str,
) -> dict[str, float]:
    targets = problem.targets
    weight = torch.ones_like(want_losses.total) if targets.weight is None else targets.weight
    T = given.temperature
    size = weight.double() * (T**2 * targets.soft_weight + given.hard_weight)
    found = {}
    for name, got, want in zip(RowLosses._fields, losses, want_losses, strict=True):
        budget = 2e-6 * size + 2e-6 * want.abs() + 1e-30
        # A part is not yet times its weight.
        budget = budget if name == "total" else budget + 2e-6 * weight * T**2
        found[name] = _share((got.double() - want).abs(), budget)
    relative = (_RELATIVE if device == "cuda" else _INTERPRETED)[given.dtype]
    size = 2 * weight.double() * (T * targets.soft_weight + given.hard_weight)
    budget = relative * want_grad.abs() + 3e-7 * size[:, None] + _SUBNORMAL[given.dtype] + 1e-30
    found["gradient"] = _share((grad.double() - want_grad).abs(), budget)
    return found


def _share(error: Tensor, budget: Tensor) -> float:
    """The largest share; NaN, which no budget covers, is infinite."""
    return float((error / budget).nan_to_num(nan=float("inf")).max())


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal in every bit, NaN included."""
    integer = torch.int16 if a.element_size() == 2 else torch.int32
    return torch.equal(a.view(integer), b.view(integer))
