"""Correctness before speed: each contestant against float64, with its error stated."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from softlabel.tools.bench.kernel.case import Answer, Case, exact_answer
from softlabel.tools.bench.kernel.contestants import OURS_NAMES, Contestant

_LOSS_TOLERANCE = 1e-4
_GRAD_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2, torch.float16: 2e-3}


def errors(
    case: Case, taking_part: Mapping[str, Contestant]
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Relative errors of loss and gradient by contestant; and of peers that do not run, why.

    Loss: of 1 + the exact loss. Gradient: of the largest exact entry.

    Raises:
        AssertionError: a contestant computes something else.
    """
    exact = exact_answer(case)
    found: dict[str, dict[str, float]] = {}
    failed: dict[str, str] = {}
    for name, contestant in taking_part.items():
        case.restore()
        try:
            loss, grad = contestant.run()
        except Exception as error:
            if name in OURS_NAMES:
                raise
            failed[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            continue
        found[name] = _errors(name, loss, grad, exact)
    return found, failed


def check_found(
    name: str, case: Case, run: Callable[[], tuple[Tensor, Tensor]]
) -> dict[str, float]:
    """Relative errors of one way to loss and gradient, as `errors` has them."""
    case.restore()
    loss, grad = run()
    return _errors(name, loss, grad, exact_answer(case))


def _errors(name: str, loss: Tensor, grad: Tensor, exact: Answer) -> dict[str, float]:
    # A mean is of all rows, of which only some are known exactly.
    loss_error = 0.0
    if loss.ndim:
        difference = loss[exact.rows].double() - exact.loss
        loss_error = float((difference / (1 + exact.loss.abs())).abs().max())
    difference = grad[exact.rows].double() - exact.grad
    grad_error = float(difference.abs().max() / exact.grad.abs().max())
    finite = bool(torch.isfinite(grad).all()) and bool(torch.isfinite(loss).all())
    fits = loss_error <= _LOSS_TOLERANCE and grad_error <= _GRAD_TOLERANCE[grad.dtype]
    if not (finite and fits):
        raise AssertionError(
            f"{name} computes something else: relative error of the loss {loss_error:.1e}, "
            f"of the gradient {grad_error:.1e}, all finite: {finite}"
        )
    return {"loss_error": loss_error, "grad_error": grad_error}
