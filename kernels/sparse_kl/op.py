"""The public face of sparse_kl: checks what the caller gave and hands it to one implementation."""

from typing import Any, Literal, get_args, overload

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import custom_op, reference
from softlabel.kernels.sparse_kl.losses import RowLosses
from softlabel.kernels.sparse_kl.normalizer import checked_normalizer, mean_factor, one_number
from softlabel.kernels.sparse_kl.targets import (
    Tail,
    Targets,
    checked_logits,
    checked_targets,
    merged,
)

Backend = Literal["auto", "triton", "torch", "reference"]
Reduction = Literal["none", "mean", "sum"]

_BACKENDS: tuple[str, ...] = get_args(Backend)
_REDUCTIONS: tuple[str, ...] = get_args(Reduction)

_TRITON_TOP_K = 1024
"""The most stored classes that the triton kernels hold in registers."""


@overload
def sparse_kl(
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    *,
    return_parts: Literal[True],
    **options: Any,
) -> RowLosses: ...


@overload
def sparse_kl(
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    **options: Any,
) -> Tensor: ...


def sparse_kl(  # type: ignore[misc]
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    *,
    temperature: float = 1.0,
    tail: Tail = "bucket",
    target: Tensor | None = None,
    soft_weight: float = 1.0,
    hard_weight: float = 0.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    num_classes: int | None = None,
    reduction: Reduction = "none",
    normalizer: float | Tensor | None = None,
    return_parts: bool = False,
    merge_duplicates: bool = False,
    backend: Backend = "auto",
) -> Tensor | RowLosses:
    """soft_weight * T**2 * KL(teacher || student) + hard_weight * cross-entropy, per row.

    The teacher is known by its top K logits and the mass of the rest. Both sides of the KL are
    softmax distributions at `temperature` T; T**2 keeps the size of gradients when T changes
    (Hinton et al. 2015, arXiv:1503.02531, section 2.1). `tail` says what the loss makes of the
    classes that were not stored:

    - "bucket": their total. They count as one class, on both sides.
    - "uniform": their total, spread evenly over them (Shen and Xing 2021, arXiv:2112.01528).
    - "renorm": nothing. The stored classes are the teacher's whole distribution.
    - "truncate": their total is left out of the teacher, of the sum, and of nothing else. Not a
      divergence: it can be negative.
    - "subset": nothing, of the student either: both distributions are over the stored classes.

    Args:
        logits: [..., W] student logits before temperature; float32, bfloat16 or float16 (float64
            too, except on the triton backend). Classes next to each other; rows may be apart.
        topk_logit: [..., K] teacher logits, each row relative to any constant (the store: to the
            row's maximum); float32 or float16.
        topk_class: [..., K] class ids below C, unique within a row; int16, int32, int64, uint16 or
            uint32. A negative id says that the entry does not exist; a row without any has no
            soft loss. An id of C or more is an IndexError on the CPU and a NaN row on the GPU.
        tail_lse: [...] float32, log of the sum of exp(z / T) over the classes not stored, z being
            relative to the same constant; -inf for none. May be None for "renorm" and "subset".
        temperature: softmax temperature of the soft part, dimensionless, > 0.
        target: [...] class labels of the hard part, int32 or int64; one that is neither a class
            nor `ignore_index` is treated like a class id that does not exist.
        soft_weight, hard_weight: factors of the parts; a part of weight 0 is not computed.
        label_smoothing: share of the hard target that is spread over all C classes, in [0, 1).
        ignore_index: a row with this target has no hard loss.
        weight: [...] float32 factor of each row; None is 1. A row of weight 0 is not looked at:
            its loss and gradient are 0 whatever it holds.
        num_classes: C; the columns of `logits` from there on are padding. None is W.
        reduction: "mean" divides the sum by `normalizer`.
        normalizer: a number or a tensor of one element, for "mean" only; None is the sum of
            weights. Of no weight at all the mean is 0.
        return_parts: return the two parts too.
        merge_duplicates: add up entries that name the same class; costs [..., K, K].
        backend: "auto" is "triton" for CUDA tensors (but "torch" for float64 or K > 1024) and
            "torch" for all others; "reference" is the definition, computed in float64.

    Returns:
        [...] loss in nats, times weight, or its mean or sum; float32 (float64 if `logits` are).
        With `return_parts` a RowLosses of such. The gradient flows to `logits` only, from the
        total only, once.

    Raises:
        ValueError: shapes, dtypes, devices or options that cannot be right.
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be none, mean or sum, got {reduction!r}")
    divisor, total = checked_normalizer(normalizer, reduction, logits.device)
    targets = _checked(
        logits, num_classes, merge_duplicates, topk_logit, topk_class, tail_lse, target, weight,
        temperature, tail, soft_weight, hard_weight, label_smoothing, ignore_index,
    )  # fmt: skip
    implementation = chosen(
        backend, device=logits.device, dtype=logits.dtype, top_k=targets.topk_class.shape[1]
    )
    rows = _as_rows(logits)
    if implementation == "reference":
        losses = _reference(rows, targets, reduction, divisor, total)
    else:
        # In float16, 1 / B would push gradients into the subnormals before a loss scale could lift
        # them out: there the mean divides after the operator.
        late = reduction == "mean" and logits.dtype == torch.float16
        loss, parts, _ = custom_op.sparse_kl(
            rows,
            *targets,
            implementation,
            *(("sum", None, None) if late else (reduction, divisor, total)),
        )
        if late:
            weights = targets.weight if total is None else total
            share, inverse = mean_factor(len(rows), divisor, weights)
            factor = share if inverse is None else inverse
            loss, parts = loss * factor, parts * factor
        losses = RowLosses(loss, parts[0], parts[1])
    if reduction == "none":
        losses = RowLosses(*(loss.reshape(logits.shape[:-1]) for loss in losses))
    return losses if return_parts else losses.total


@overload
def sparse_kl_grad(
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    *,
    return_parts: Literal[True],
    **options: Any,
) -> tuple[RowLosses, Tensor]: ...


@overload
def sparse_kl_grad(
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    **options: Any,
) -> tuple[Tensor, Tensor]: ...


def sparse_kl_grad(  # type: ignore[misc]
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    *,
    temperature: float = 1.0,
    tail: Tail = "bucket",
    target: Tensor | None = None,
    soft_weight: float = 1.0,
    hard_weight: float = 0.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    num_classes: int | None = None,
    grad_scale: float | Tensor = 1.0,
    out: Tensor | None = None,
    return_parts: bool = False,
    merge_duplicates: bool = False,
    backend: Backend = "auto",
) -> tuple[Tensor | RowLosses, Tensor]:
    """`sparse_kl` with its gradient, for trainers: `logits.backward(dlogits)` does the rest.

    It saves autograd's passes, and keeps float16 gradients out of the subnormals: `grad_scale`
    (an AMP loss scale, 1 / batch size) is applied before they are rounded.

    Args:
        logits: as for `sparse_kl`, and so are the arguments not listed here.
        grad_scale: factor of the gradient only; a number, or one float32 element on the device.
        out: [..., W] like `logits` in dtype and device, overwritten with the gradient; a buffer
            to use again, or `logits` itself if no other operation saved them for its backward.
            None makes a new one.

    Returns:
        ([...] loss times weight, not times grad_scale, or a RowLosses of such;
        [..., W] gradient of grad_scale * loss.sum() to `logits`, 0 in the padding)
    """
    targets = _checked(
        logits, num_classes, merge_duplicates, topk_logit, topk_class, tail_lse, target, weight,
        temperature, tail, soft_weight, hard_weight, label_smoothing, ignore_index,
    )  # fmt: skip
    implementation = chosen(
        backend, device=logits.device, dtype=logits.dtype, top_k=targets.topk_class.shape[1]
    )
    scale, scale_tensor = 1.0, None
    if isinstance(grad_scale, Tensor):
        scale_tensor = one_number("grad_scale", grad_scale, logits.device)
    else:
        scale = float(grad_scale)
    if out is None:
        out = torch.empty_like(logits, memory_format=torch.contiguous_format)
    rows, dlogits = _as_rows(logits.detach()), _out_rows(out, logits)
    if torch.compiler.is_compiling():
        # In place the operator takes its logits from where the gradient goes.
        given = None if out is logits else rows
        losses = custom_op.sparse_kl_grad_(
            given, *targets, implementation, scale, scale_tensor, dlogits
        )
    else:
        losses = custom_op.row_losses(
            rows, targets, implementation, grad_scale=scale, scale_tensor=scale_tensor, out=dlogits
        )
    if logits.ndim != 2:
        losses = losses.reshape(3, *logits.shape[:-1])
    return RowLosses(*losses.unbind()) if return_parts else losses[0], out


def _checked(
    logits: Tensor, num_classes: int | None, merge_duplicates: bool, *fields: Any
) -> Targets:
    """The targets for rows of logits; fields are those of Targets without num_classes."""
    checked_logits(logits)
    classes = logits.shape[-1] if num_classes is None else num_classes
    given = Targets._make((*fields[:7], classes, *fields[7:]))
    targets = checked_targets(given, logits.shape, logits.device)
    if not merge_duplicates:
        return targets
    topk_logit, topk_class = merged(targets.topk_logit, targets.topk_class, targets.temperature)
    return targets._replace(topk_logit=topk_logit, topk_class=topk_class)


def _as_rows(logits: Tensor) -> Tensor:
    return logits if logits.ndim == 2 else logits.reshape(-1, logits.shape[-1])


def _out_rows(out: Tensor, logits: Tensor) -> Tensor:
    """`out` as [B, W], sharing its memory."""
    width = logits.shape[-1]
    wanted = (logits.shape, logits.dtype, logits.device)
    if (out.shape, out.dtype, out.device) == wanted and out.stride(-1) == 1:
        try:
            rows = out.detach() if out.ndim == 2 else out.detach().view(-1, width)
        except RuntimeError:
            rows = None
        if rows is not None and (len(rows) < 2 or rows.stride(0) >= width):
            return rows
    raise ValueError(
        f"out must be like logits, {list(logits.shape)} {logits.dtype} on {logits.device} with "
        f"rows at even distances that do not overlap, got {list(out.shape)} {out.dtype} on "
        f"{out.device} with strides {out.stride()}"
    )


def _reference(
    rows: Tensor,
    targets: Targets,
    reduction: Reduction,
    divisor: float | None,
    total: Tensor | None,
) -> RowLosses:
    """The definition, differentiated by autograd."""
    dtype = torch.promote_types(rows.dtype, torch.float32)
    found = [loss.to(dtype) for loss in reference.sparse_kl(rows.double(), targets)]
    if reduction != "none":
        found = [loss.sum() for loss in found]
    if reduction == "mean":
        share, inverse = mean_factor(len(rows), divisor, targets.weight if total is None else total)
        found = [loss * (share if inverse is None else inverse) for loss in found]
    return RowLosses(found[0], found[1].detach(), found[2].detach())


def chosen(backend: str, *, device: torch.device, dtype: torch.dtype, top_k: int) -> str:
    """ "auto" goes by what is asked; a backend never stands in for another that failed."""
    if backend not in _BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(_BACKENDS)}, got {backend!r}")
    fits = dtype != torch.float64 and top_k <= _TRITON_TOP_K
    if backend == "auto":
        return "triton" if device.type == "cuda" and fits else "torch"
    if backend == "triton" and not fits:
        raise ValueError(
            f"backend 'triton' computes in float32 with up to {_TRITON_TOP_K} stored classes, "
            f"got {dtype} logits and {top_k}"
        )
    return backend
