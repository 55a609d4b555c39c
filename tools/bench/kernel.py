"""kd-bench kernel: the sparse loss and its gradient against the dense ways to write it.

Every contestant computes the same numbers, loss and gradient to the logits; that is checked first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from softlabel.kernels.sparse_kl import sparse_kl_grad
from softlabel.tools.bench.timing import interleaved

_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class KernelBench:
    """Shapes and repeats."""

    rows: int = 1024
    """Rows of logits."""
    classes: int = 21_841
    """Columns of logits."""
    top_k: int = 16
    """Stored classes a row."""
    repeats: int = 15
    """Interleaved repeats; medians are reported."""


def bench_kernel(bench: KernelBench) -> dict[str, Any]:
    """Milliseconds of each contestant for loss and gradient, and its ratio to ours."""
    generator = torch.Generator().manual_seed(0)
    z = 3 * torch.randn(bench.rows, bench.classes, generator=generator)
    teacher = 3 * torch.randn(bench.rows, bench.classes, generator=generator)
    top, index = teacher.topk(bench.top_k, dim=1)
    relative = (top - top[:, :1]).half()
    rest = teacher.scatter(1, index, float("-inf")) - top[:, :1]
    tail = torch.logsumexp(rest, 1)
    out = torch.empty_like(z)

    def ours() -> tuple[Tensor, Tensor]:
        return sparse_kl_grad(
            z, relative, index, tail, tail="uniform", grad_scale=1 / bench.rows, out=out
        )

    contestants: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "sparse_kl_grad": ours,
        "kl_div, dense teacher rebuilt": lambda: _kl_div(z, relative, index, tail),
        "cross_entropy, dense teacher rebuilt": lambda: _cross_entropy(z, relative, index, tail),
    }
    _check(contestants)
    seconds = interleaved(contestants, repeats=bench.repeats)
    mine = seconds["sparse_kl_grad"]
    return {
        "rows": bench.rows,
        "classes": bench.classes,
        "top_k": bench.top_k,
        "threads": torch.get_num_threads(),
        "ms": {name: round(s * 1e3, 3) for name, s in seconds.items()},
        "times_ours": {name: round(s / mine, 2) for name, s in seconds.items()},
    }


def _dense(z: Tensor, relative: Tensor, index: Tensor, tail: Tensor) -> Tensor:
    """The teacher's distribution with its tail spread evenly, as a dense row."""
    log_sum = torch.logaddexp(torch.logsumexp(relative.float(), 1), tail)
    left_out = z.shape[1] - index.shape[1]
    spread = (tail - log_sum).exp()[:, None] / left_out
    return spread.expand(z.shape).scatter(1, index, (relative.float() - log_sum[:, None]).exp())


def _kl_div(z: Tensor, relative: Tensor, index: Tensor, tail: Tensor) -> tuple[Tensor, Tensor]:
    logits = z.detach().requires_grad_()
    dense = _dense(z, relative, index, tail)
    loss = functional.kl_div(functional.log_softmax(logits, 1), dense, reduction="none").sum(1)
    (grad,) = torch.autograd.grad(loss.mean(), logits)
    return loss.detach(), grad


def _cross_entropy(
    z: Tensor, relative: Tensor, index: Tensor, tail: Tensor
) -> tuple[Tensor, Tensor]:
    logits = z.detach().requires_grad_()
    dense = _dense(z, relative, index, tail)
    loss = functional.cross_entropy(logits, dense, reduction="none")
    (grad,) = torch.autograd.grad(loss.mean(), logits)
    return (loss - torch.special.entr(dense).sum(1)).detach(), grad


def _check(contestants: dict[str, Callable[[], tuple[Tensor, Tensor]]]) -> None:
    found = {name: tuple(t.clone() for t in run()) for name, run in contestants.items()}
    loss, grad = found["sparse_kl_grad"]
    for name, (other_loss, other_grad) in found.items():
        error = max(
            float(((loss - other_loss) / (1 + other_loss.abs())).abs().max()),
            float((grad - other_grad).abs().max() / other_grad.abs().max()),
        )
        if error > _TOLERANCE:
            raise AssertionError(f"{name} computes something else: relative error {error:.1e}")


def lines(result: dict[str, Any]) -> Sequence[str]:
    """The result as people read it."""
    head = (
        f"loss and gradient, {result['rows']} x {result['classes']}, top {result['top_k']}, "
        f"{result['threads']} thread(s)"
    )
    return [
        head,
        *(
            f"{name:38} {ms:10.2f} ms  {result['times_ours'][name]:6.2f} x ours"
            for name, ms in result["ms"].items()
        ),
    ]
