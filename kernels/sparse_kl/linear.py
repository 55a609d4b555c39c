"""The last layer and its loss in one: logits exist only some rows at a time.

B rows, D features, W columns of which the first C are classes.
"""

from typing import Any, Literal, overload

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl import linear_op
from softlabel.kernels.sparse_kl.losses import RowLosses
from softlabel.kernels.sparse_kl.normalizer import checked_normalizer, mean_factor
from softlabel.kernels.sparse_kl.op import Backend, chosen
from softlabel.kernels.sparse_kl.targets import Tail, Targets, checked_targets, merged

CHUNK_BYTES = 256 << 20
"""Of logits at a time. Each chunk reads and writes the weight's float32 gradient, 8 W D bytes, so
chunks should be few and large. In bfloat16 these are 4,096 rows of 32,000 columns, or 883 of
151,936: enough rows for that traffic to hide behind the arithmetic of the product."""

_ROWS_TOGETHER = 64  # a matrix product's tile takes as many anyway


@overload
def linear_sparse_kl(
    hidden: Tensor,
    weight: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    *,
    return_parts: Literal[True],
    **options: Any,
) -> RowLosses: ...


@overload
def linear_sparse_kl(
    hidden: Tensor,
    weight: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    **options: Any,
) -> Tensor: ...


def linear_sparse_kl(  # type: ignore[misc]
    hidden: Tensor,
    weight: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    tail: Tail = "bucket",
    target: Tensor | None = None,
    soft_weight: float = 1.0,
    hard_weight: float = 0.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    row_weight: Tensor | None = None,
    num_classes: int | None = None,
    reduction: str = "mean",
    normalizer: float | Tensor | None = None,
    return_parts: bool = False,
    merge_duplicates: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
    backend: Backend = "auto",
) -> Tensor | RowLosses:
    """`sparse_kl` of the logits `hidden @ weight.T + bias`, which are never there as a whole.

    The gradients to hidden, weight and bias, those of them that are wanted, are made in the forward
    pass, and only scaled in backward, where they need to be. Sums over chunks are float32 and in a
    fixed order: equal calls give equal bits, another `chunk_bytes` others by rounding.

    Under autocast the layer computes in autocast's dtype, as `torch.nn.functional.linear` does;
    gradients to float32 tensors are not rounded to that dtype on their way.

    Args:
        hidden: [..., D] input of the layer; float32, bfloat16 or float16 (float64 too, except on
            the triton backend).
        weight: [W, D] of the layer, W >= C; in the dtype of hidden, unless under autocast.
        topk_logit: as for `sparse_kl`, and so are the arguments not listed here.
        bias: [W] of the layer.
        row_weight: [...] float32; what `sparse_kl` calls weight.
        reduction: "mean" divides by the sum of row weights, "sum" does not. There is no "none":
            gradients are made before anybody could say what each row's loss is worth; `row_weight`
            says it beforehand.
        chunk_bytes: memory for logits, at least one row. `CHUNK_BYTES` says why not to be mean.

    Returns:
        The loss, a float32 scalar (float64 if hidden is); with `return_parts` a RowLosses of such.
        The gradient flows from the total only; it has no derivative itself.

    Raises:
        ValueError: shapes, dtypes, devices or options that cannot be right.
    """
    dtype = _working_dtype(hidden, weight, bias)
    if reduction not in ("mean", "sum"):
        raise ValueError(
            f"reduction must be mean or sum, got {reduction!r}; there is none by row, because "
            "gradients are made before rows could be weighted: give row_weight"
        )
    if chunk_bytes < 1:
        raise ValueError(f"chunk_bytes must be positive, got {chunk_bytes}")
    divisor, total = checked_normalizer(normalizer, reduction, hidden.device)
    rows, width = hidden.reshape(-1, hidden.shape[-1]), len(weight)
    given = Targets(
        topk_logit, topk_class, tail_lse, target, row_weight, temperature, tail,
        width if num_classes is None else num_classes,
        soft_weight, hard_weight, label_smoothing, ignore_index,
    )  # fmt: skip
    targets = checked_targets(given, (*hidden.shape[:-1], width), hidden.device)
    if merge_duplicates:
        entries = merged(targets.topk_logit, targets.topk_class, targets.temperature)
        targets = targets._replace(topk_logit=entries[0], topk_class=entries[1])
    top_k = targets.topk_class.shape[1]
    scale: tuple[float, Tensor | None] = (1.0, None)
    if reduction == "mean":
        scale = mean_factor(len(rows), divisor, targets.weight if total is None else total)
    # In float16, 1 / B would push gradients into the subnormals: there it comes last.
    last = dtype == torch.float16
    loss, parts, *_ = linear_op.linear_sparse_kl(
        rows,
        weight,
        bias,
        *targets,
        *((1.0, None) if last else scale),
        _chunk_rows(len(rows), width * dtype.itemsize, chunk_bytes),
        dtype,
        chosen(backend, device=hidden.device, dtype=dtype, top_k=top_k),
        [_wanted(rows), _wanted(weight), _wanted(bias)],
    )
    if last:
        factor = scale[0] if scale[1] is None else scale[0] * scale[1]
        loss, parts = loss * factor, parts * factor
    return RowLosses(loss, parts[0], parts[1]) if return_parts else loss


def _working_dtype(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> torch.dtype:
    """What the layer computes in; refuses tensors that make no layer."""
    fits = hidden.ndim >= 1 and weight.ndim == 2 and hidden.shape[-1] == weight.shape[1]
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        raise ValueError(
            "wanted hidden [..., D], weight [W, D] and bias [W] or None, got "
            f"{list(hidden.shape)}, {list(weight.shape)} and "
            f"{None if bias is None else list(bias.shape)}"
        )
    layer = [hidden, weight] if bias is None else [hidden, weight, bias]
    kind, dtypes = hidden.device.type, {tensor.dtype for tensor in layer}
    # Autocast does not touch float64.
    cast = torch.is_autocast_enabled(kind) and torch.float64 not in dtypes
    one_device = all(tensor.device == hidden.device for tensor in layer)
    if not (
        one_device
        and all(tensor.is_floating_point() for tensor in layer)
        and (cast or len(dtypes) == 1)
    ):
        described = ", ".join(f"{t.dtype} on {t.device}".removeprefix("torch.") for t in layer)
        raise ValueError(
            "hidden, weight and bias must be floating point, of one dtype (unless under autocast) "
            f"and on one device, got {described}"
        )
    return torch.get_autocast_dtype(kind) if cast else hidden.dtype


def _chunk_rows(num_rows: int, row_bytes: int, chunk_bytes: int) -> int:
    """Rows of a chunk: as many in each as can be, in whole tiles where that is near."""
    most = max(1, chunk_bytes // row_bytes)
    num_chunks = max(1, -(-num_rows // most))
    rows = max(1, -(-num_rows // num_chunks))
    tiles = -(-rows // _ROWS_TOGETHER) * _ROWS_TOGETHER
    return tiles if tiles <= most else rows


def _wanted(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.requires_grad and torch.is_grad_enabled()
