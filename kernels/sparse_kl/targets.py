"""The teacher's side of a batch: what is stored for it, how it is to be read, and its checks."""

import math
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Tail = Literal["bucket", "uniform", "renorm"]

_LOGITS_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_CLASS_DTYPES = (torch.uint16, torch.uint32, torch.int32, torch.int64)


class Targets(NamedTuple):
    """B rows of K stored classes, as every implementation takes them; `op` explains the fields."""

    topk_logit: Tensor
    topk_class: Tensor
    tail_lse: Tensor | None
    """None says that nothing lies outside the stored classes; the rule is then "renorm"."""
    weight: Tensor | None
    temperature: float
    tail: Tail
    num_classes: int


def checked_targets(
    logits: Tensor,
    topk_logit: Tensor,
    topk_class: Tensor,
    tail_lse: Tensor | None,
    *,
    temperature: float,
    tail: Tail,
    weight: Tensor | None,
    num_classes: int | None,
) -> Targets:
    """Refuse everything that can be known to be wrong without reading device memory."""
    if logits.ndim != 2 or logits.dtype not in _LOGITS_DTYPES or logits.stride(1) != 1:
        raise ValueError(
            "logits must be [B, C] floating point with the classes of a row next to each other, "
            f"got {list(logits.shape)} {_name(logits.dtype)} with strides {logits.stride()}"
        )
    if tail not in get_args(Tail):
        raise ValueError(f"tail must be one of {', '.join(get_args(Tail))}, got {tail!r}")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    num_rows, width = logits.shape
    num_classes = width if num_classes is None else num_classes
    top_k = topk_logit.shape[-1] if topk_logit.ndim else 0
    if not 1 <= top_k <= num_classes <= width:
        raise ValueError(
            "wanted 1 <= stored classes <= num_classes <= columns of logits, "
            f"got {top_k}, {num_classes}, {width}"
        )
    floats = (torch.float16, torch.float32)
    _check("topk_logit", topk_logit, (num_rows, top_k), floats, logits.device)
    _check("topk_class", topk_class, (num_rows, top_k), _CLASS_DTYPES, logits.device)
    if tail_lse is None and tail != "renorm":
        raise ValueError(f"tail {tail!r} needs tail_lse; only 'renorm' does without")
    if tail_lse is not None:
        _check("tail_lse", tail_lse, (num_rows,), (torch.float32,), logits.device)
    if weight is not None:
        _check("weight", weight, (num_rows,), (torch.float32,), logits.device)
    if top_k == num_classes or tail == "renorm":
        # Without a tail the rules are one and the same.
        tail, tail_lse = "renorm", None
    return Targets(
        topk_logit=topk_logit.detach(),
        topk_class=topk_class,
        tail_lse=None if tail_lse is None else tail_lse.detach(),
        weight=None if weight is None else weight.detach(),
        temperature=float(temperature),
        tail=tail,
        num_classes=num_classes,
    )


def _check(
    name: str,
    tensor: Tensor,
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
) -> None:
    if tensor.shape != shape or tensor.dtype not in dtypes or tensor.device != device:
        raise ValueError(
            f"{name} must be {list(shape)} {' or '.join(map(_name, dtypes))} on {device}, "
            f"got {list(tensor.shape)} {_name(tensor.dtype)} on {tensor.device}"
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
