"""The public face of sparse_kl: checks what the caller gave and hands it to one implementation."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import native, reference
from softlabel.kernels.sparse_kl.targets import Tail, Targets, checked_targets

Backend = Literal["auto", "triton", "torch", "reference"]
Reduction = Literal["none", "mean", "sum"]


def sparse_kl(
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    *,
    temperature: float = 1.0,
    tail: Tail = "bucket",
    weight: Tensor | None = None,
    num_classes: int | None = None,
    backend: Backend = "auto",
    reduction: Reduction = "none",
) -> Tensor:
    """KL(teacher || student) per row, from the teacher's top K logits and the mass of the rest.

    Both sides are softmax distributions at `temperature` T; the loss is times T**2, so that
    gradients keep their size when T changes (Hinton et al. 2015, arXiv:1503.02531, section 2.1).
    `tail` says what the loss knows about the classes that were not stored:

    - "bucket": their total. They count as one class, on both sides.
    - "uniform": their total, spread evenly over them (Shen and Xing 2021, arXiv:2112.01528).
    - "renorm": nothing. The stored classes are the teacher's whole distribution.

    Args:
        logits: [B, W] student logits before temperature; float32, bfloat16 or float16 (float64
            too, except on the triton backend). Classes next to each other; rows may be apart.
        topk_logit: [B, K] teacher logits, each row relative to any constant (the store: to the
            row's maximum); float32 or float16.
        topk_class: [B, K] class ids in [0, C), unique within a row; uint16, uint32, int32 or
            int64. An id outside is an IndexError or RuntimeError on the CPU and a NaN row on
            the GPU.
        tail_lse: [B] float32, log of the sum of exp(z / T) over the classes not stored, z being
            relative to the same constant; -inf for none. May be None for "renorm".
        temperature: softmax temperature, dimensionless, > 0.
        weight: [B] float32 factor of each row; None is 1. A row of weight 0 is not looked at:
            its loss and gradient are 0 whatever it holds.
        num_classes: C; the columns of `logits` from there on are padding. None is W.
        backend: "auto" is "triton" for CUDA tensors and "torch" for all others; "reference" is
            the float64 definition.
        reduction: "mean" divides by the sum of weights; of no weight at all it is 0.

    Returns:
        [B] loss in nats, times weight, or its mean or sum; float32 (float64 if `logits` are).
        The gradient flows to `logits` only, once.

    Raises:
        ValueError: shapes, dtypes, devices or options that cannot be right.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be none, mean or sum, got {reduction!r}")
    targets = checked_targets(
        logits,
        topk_logit,
        topk_class,
        tail_lse,
        temperature=temperature,
        tail=tail,
        weight=weight,
        num_classes=num_classes,
    )
    row_loss: Tensor = _SparseKL.apply(logits, targets, _chosen(backend, logits))
    if reduction == "none":
        return row_loss
    if reduction == "sum":
        return row_loss.sum()
    if targets.weight is None:
        return row_loss.sum() / max(1, len(logits))
    total = targets.weight.sum()
    return row_loss.sum() / torch.where(total == 0, 1.0, total)


def sparse_kl_grad(
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    *,
    temperature: float = 1.0,
    tail: Tail = "bucket",
    weight: Tensor | None = None,
    num_classes: int | None = None,
    backend: Backend = "auto",
    grad_scale: float = 1.0,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`sparse_kl` with its gradient, for trainers: `logits.backward(dlogits)` does the rest.

    It saves autograd's pass over the gradient, and keeps float16 gradients out of the subnormals:
    `grad_scale` (an AMP loss scale, 1 / batch size) is applied before they are rounded.

    Args:
        logits: as for `sparse_kl`, and so are the arguments not listed here.
        grad_scale: factor of the gradient only.
        out: [B, W] like `logits` in dtype and device, overwritten with the gradient; a buffer
            to use again, or `logits` itself if no other operation saved them for its backward.
            None makes a new one.

    Returns:
        ([B] loss times weight, not times grad_scale;
        [B, W] gradient of grad_scale * loss.sum() to `logits`, 0 in the padding)
    """
    targets = checked_targets(
        logits,
        topk_logit,
        topk_class,
        tail_lse,
        temperature=temperature,
        tail=tail,
        weight=weight,
        num_classes=num_classes,
    )
    chosen = _chosen(backend, logits)
    if out is None:
        out = torch.empty_like(logits, memory_format=torch.contiguous_format)
    elif (
        (out.shape, out.dtype, out.device) != (logits.shape, logits.dtype, logits.device)
        or out.stride(1) != 1
        or out.stride(0) < out.shape[1]
    ):
        raise ValueError(
            f"out must be like logits, {list(logits.shape)} {logits.dtype} on {logits.device} with "
            f"rows that do not overlap, got {list(out.shape)} {out.dtype} on {out.device}, "
            f"strides {out.stride()}"
        )
    return _loss_and_grad(logits.detach(), targets, chosen, grad_scale=grad_scale, out=out), out


class _SparseKL(torch.autograd.Function):
    """The gradient is made in the forward pass, where the row is at hand."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Targets, backend: Backend) -> Tensor:
        dlogits = torch.empty_like(logits, memory_format=torch.contiguous_format)
        row_loss = _loss_and_grad(logits, targets, backend, grad_scale=1.0, out=dlogits)
        ctx.save_for_backward(dlogits)
        return row_loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("sparse_kl has no second derivative; leave out create_graph=True")
        (dlogits,) = ctx.saved_tensors
        # `out` rounds the float32 product once; the saved gradient stays for another backward.
        return torch.mul(dlogits, grad[:, None], out=torch.empty_like(dlogits)), None, None


def _loss_and_grad(
    logits: Tensor, targets: Targets, backend: Backend, *, grad_scale: float, out: Tensor
) -> Tensor:
    if len(logits) == 0:
        return logits.new_empty(0, dtype=torch.promote_types(logits.dtype, torch.float32))
    if backend == "torch":
        return native.sparse_kl_grad(logits, targets, grad_scale=grad_scale, out=out)
    if backend == "triton":
        from softlabel.kernels.sparse_kl import launch  # triton loads only where it runs

        return launch.sparse_kl_grad(logits, targets, grad_scale=grad_scale, out=out)
    with torch.enable_grad():
        exact = logits.double().requires_grad_()
        row_loss = reference.sparse_kl(exact, **targets._asdict())
        (gradient,) = torch.autograd.grad(row_loss.sum(), exact)
    out.copy_(gradient * grad_scale)
    return row_loss.detach().to(torch.promote_types(logits.dtype, torch.float32))


def _chosen(backend: Backend, logits: Tensor) -> Backend:
    """ "auto" goes by the device; a backend never stands in for another that failed."""
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, got {backend!r}")
    if backend == "auto":
        return "triton" if logits.is_cuda else "torch"
    if backend == "triton" and logits.dtype == torch.float64:
        raise ValueError("backend 'triton' computes in float32, got float64 logits")
    return backend
