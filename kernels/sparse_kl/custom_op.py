"""sparse_kl for autograd, and as operators of torch.library so that torch.compile does not look in.

The gradient is made in the forward pass, where the row is at hand, already divided by the
normalizer; backward multiplies it by the upstream gradient, which is normally 1.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import native, reference
from softlabel.kernels.sparse_kl.normalizer import mean_factor
from softlabel.kernels.sparse_kl.targets import Tail, Targets

_TARGETS = (
    "Tensor topk_logit, Tensor topk_class, Tensor? tail_lse, Tensor? target, Tensor? weight, "
    "float temperature, str tail, int num_classes, float soft_weight, float hard_weight, "
    "float label_smoothing, int ignore_index"
)


def row_losses(
    logits: Tensor,
    targets: Targets,
    implementation: str,
    *,
    grad_scale: float,
    scale_tensor: Tensor | None,
    out: Tensor,
) -> Tensor:
    """[3, B] total, soft and hard losses; `out` [B, W] becomes the gradient."""
    grad: Callable[..., Tensor] = native.sparse_kl_grad
    if implementation == "triton" and len(logits):
        from softlabel.kernels.sparse_kl.gpu import launch  # triton loads only where it runs

        grad = launch.sparse_kl_grad
    elif implementation == "reference":
        grad = _reference_grad
    return grad(logits, targets, grad_scale=grad_scale, scale_tensor=scale_tensor, out=out)


def losses_and_gradient(
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    temperature: float,
    tail: Tail,
    num_classes: int,
    soft_weight: float,
    hard_weight: float,
    label_smoothing: float,
    ignore_index: int,
    implementation: str,
    reduction: str,
    divisor: float | None,
    normalizer: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss [B] or [], the parts [2, B] or [2], and the gradient [B, W] of the summed loss.

    "mean" divides by `divisor`, `normalizer` (a tensor of one element), or the sum of weights.
    """
    targets = Targets(
        topk_logit, topk_class, tail_lse, target, weight, temperature, tail, num_classes,
        soft_weight, hard_weight, label_smoothing, ignore_index,
    )  # fmt: skip
    share, inverse = 1.0, None
    if reduction == "mean":
        share, inverse = mean_factor(
            len(logits), divisor, weight if normalizer is None else normalizer
        )
    gradient = torch.empty_like(logits, memory_format=torch.contiguous_format)
    losses = row_losses(
        logits, targets, implementation, grad_scale=share, scale_tensor=inverse, out=gradient
    )
    if reduction != "none":
        losses = losses.sum(dim=1)
        if reduction == "mean":
            losses.mul_(share if inverse is None else inverse)
    return losses[0].clone(), losses[1:].clone(), gradient


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    # Or backward would be handed a gradient of zeros for the gradient.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[2])
    ctx.num_inputs = len(inputs)


def _backward(ctx: Any, upstream: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("sparse_kl has no second derivative; leave out create_graph=True")
    if upstream is None:
        return tuple([None] * ctx.num_inputs)
    (gradient,) = ctx.saved_tensors
    return scaled(gradient, upstream.reshape(-1, 1)), *[None] * (ctx.num_inputs - 1)


class _Eager(torch.autograd.Function):
    """`softlabel::sparse_kl` without torch.library, whose first call loads all of torch.compile."""

    forward = staticmethod(losses_and_gradient)
    setup_context = staticmethod(_keep_gradient)
    backward = staticmethod(_backward)


_compiled = torch.library.custom_op(
    "softlabel::sparse_kl",
    losses_and_gradient,
    mutates_args=(),
    schema=f"(Tensor logits, {_TARGETS}, str implementation, str reduction, float? divisor, "
    "Tensor? normalizer) -> (Tensor, Tensor, Tensor)",
)
_compiled.register_autograd(_backward, setup_context=_keep_gradient)


@_compiled.register_fake
def _(logits: Tensor, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    shape = (len(logits),) if arguments[-3] == "none" else ()
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return (
        logits.new_empty(shape, dtype=dtype),
        logits.new_empty((2, *shape), dtype=dtype),
        torch.empty_like(logits, memory_format=torch.contiguous_format),
    )


def sparse_kl(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`losses_and_gradient`, with autograd: the first of its results is differentiable."""
    compiling = torch.compiler.is_compiling()
    found: tuple[Tensor, Tensor, Tensor] = (_compiled if compiling else _Eager.apply)(*arguments)
    return found


@torch.library.custom_op(
    "softlabel::sparse_kl_grad_",
    mutates_args=("out",),
    schema=f"(Tensor? logits, {_TARGETS}, str implementation, float grad_scale, "
    "Tensor? scale_tensor, Tensor(a!) out) -> Tensor",
)
def sparse_kl_grad_(
    logits: Tensor | None,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    target: Tensor | None,
    weight: Tensor | None,
    temperature: float,
    tail: Tail,
    num_classes: int,
    soft_weight: float,
    hard_weight: float,
    label_smoothing: float,
    ignore_index: int,
    implementation: str,
    grad_scale: float,
    scale_tensor: Tensor | None,
    out: Tensor,
) -> Tensor:
    """[3, B] losses; logits of None are in `out`, where the gradient takes their place."""
    targets = Targets(
        topk_logit, topk_class, tail_lse, target, weight, temperature, tail, num_classes,
        soft_weight, hard_weight, label_smoothing, ignore_index,
    )  # fmt: skip
    return row_losses(
        out if logits is None else logits,
        targets,
        implementation,
        grad_scale=grad_scale,
        scale_tensor=scale_tensor,
        out=out,
    )


@sparse_kl_grad_.register_fake
def _(*arguments: Any) -> Tensor:
    out: Tensor = arguments[-1]
    return out.new_empty((3, len(out)), dtype=torch.promote_types(out.dtype, torch.float32))


def scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """Within a backward, a saved gradient [B, W] times factor [B or 1, 1]; in place if it may be.

    What stands for a tensor while a graph is traced must not be changed, nor what another backward
    will need.
    """
    if type(gradient) is not Tensor or _graph_is_kept():
        return (gradient * factor).to(gradient.dtype)
    if gradient.is_cuda and gradient.dtype != torch.float64:
        from softlabel.kernels.sparse_kl.gpu import launch

        launch.scale_rows(gradient, factor.contiguous())
    elif gradient.is_cuda or not bool((factor == 1).all()):
        gradient.mul_(factor)
    return gradient


def _graph_is_kept() -> bool:
    """Whether this backward may be followed by another; True where torch does not tell."""
    tell = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if tell is None else bool(tell())


def _reference_grad(
    logits: Tensor,
    targets: Targets,
    *,
    grad_scale: float,
    scale_tensor: Tensor | None,
    out: Tensor,
) -> Tensor:
    with torch.enable_grad():
        exact = logits.detach().double().requires_grad_()
        losses = reference.sparse_kl(exact, targets)
        total = losses.total.sum() * grad_scale
        if scale_tensor is not None:
            total = total * scale_tensor.double()
        (gradient,) = torch.autograd.grad(total.sum(), exact)
    out.copy_(gradient)
    return torch.stack(losses).detach().to(torch.promote_types(logits.dtype, torch.float32))
