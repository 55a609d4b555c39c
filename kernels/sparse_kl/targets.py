"""What a batch is to be trained towards, how it is to be read, and its checks."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Tail = Literal["bucket", "uniform", "renorm", "truncate", "subset"]

_TAILS: tuple[str, ...] = get_args(Tail)
_TAILLESS = ("renorm", "subset")
_LOGITS_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_CLASS_DTYPES = (torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32)


class Targets(NamedTuple):
    """B rows of K stored classes, as every implementation takes them; `op` explains the fields."""

    topk_logit: Tensor
    """[B, K] float16 or float32"""
    topk_class: Tensor
    """[B, K] int16, int32, int64, uint16 or uint32; an entry of a negative class does not exist"""
    tail_lse: Tensor | None
    """[B] float32; None where the rule does not ask for it"""
    target: Tensor | None
    """[B] int32 or int64; None without class labels"""
    weight: Tensor | None
    """[B] float32; None where every row counts once"""
    temperature: float
    tail: Tail
    num_classes: int
    soft_weight: float
    hard_weight: float
    label_smoothing: float
    ignore_index: int


def checked_logits(logits: Tensor) -> None:
    """Refuse logits that are not rows [..., W] of floating point numbers."""
    if logits.ndim < 1 or logits.dtype not in _LOGITS_DTYPES or logits.stride(-1) != 1:
        raise ValueError(
            "logits must be [..., C] floating point with the classes of a row next to each other, "
            f"got {list(logits.shape)} {_name(logits.dtype)} with strides {logits.stride()}"
        )


def checked_targets(given: Targets, shape: Sequence[int], device: torch.device) -> Targets:
    """What is given for logits of a shape [..., W], as rows: [B, K] and [B], detached.

    Raises:
        ValueError: whatever can be known to be wrong without reading device memory.
    """
    _check_options(given)
    rows, width, classes = tuple(shape[:-1]), shape[-1], given.num_classes
    top_k = given.topk_logit.shape[-1] if given.topk_logit.ndim else 0
    if not 0 <= top_k <= classes <= width or classes < 1:
        raise ValueError(
            "wanted 0 <= stored classes <= num_classes <= columns of logits and num_classes >= 1, "
            f"got {top_k}, {classes}, {width}"
        )
    float32 = (torch.float32,)
    _check("topk_logit", given.topk_logit, (*rows, top_k), (torch.float16, *float32), device)
    _check("topk_class", given.topk_class, (*rows, top_k), _CLASS_DTYPES, device)
    _check("tail_lse", given.tail_lse, rows, float32, device)
    _check("target", given.target, rows, (torch.int32, torch.int64), device)
    _check("weight", given.weight, rows, float32, device)
    tail, tail_lse, target = given.tail, given.tail_lse, given.target
    if top_k == classes:
        # Without a tail the rules are one and the same.
        tail = "renorm"
    if tail in _TAILLESS:
        tail_lse = None
    elif tail_lse is None and given.soft_weight != 0 and top_k > 0:
        raise ValueError(f"tail {tail!r} needs tail_lse; only {' and '.join(_TAILLESS)} do without")
    if given.hard_weight == 0:
        target = None
    elif target is None:
        raise ValueError(f"hard_weight {given.hard_weight} needs target, got None")
    return given._replace(
        topk_logit=_flat(given.topk_logit, len(rows)),
        topk_class=_flat(given.topk_class, len(rows)),
        tail_lse=None if tail_lse is None else _flat(tail_lse, len(rows)),
        target=None if target is None else _flat(target, len(rows)),
        weight=None if given.weight is None else _flat(given.weight, len(rows)),
        temperature=float(given.temperature),
        tail=tail,
    )


def merged(topk_logit: Tensor, topk_class: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Add up what is stored more than once for a class, by comparing each entry with each.

    Returns:
        ([..., K] float32 logits, the first entry of a class holding the class's probability at
        `temperature`; [..., K] int64 classes, -1 for its other entries)
    """
    classes = topk_class.long()
    same = (classes[..., :, None] == classes[..., None, :]) & (classes >= 0)[..., None]
    scaled = (topk_logit.float() / temperature)[..., None, :]
    total = torch.logsumexp(scaled.masked_fill(~same, -math.inf), dim=-1) * temperature
    return total, classes.masked_fill(same.tril(-1).any(dim=-1), -1)


def _check_options(given: Targets) -> None:
    if given.tail not in _TAILS:
        raise ValueError(f"tail must be one of {', '.join(_TAILS)}, got {given.tail!r}")
    if not 0 < given.temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {given.temperature}")
    # Comparisons, because torch.compile can follow them where numbers are symbols.
    if not all(-math.inf < part < math.inf for part in (given.soft_weight, given.hard_weight)):
        raise ValueError(
            "soft_weight and hard_weight must be finite, "
            f"got {given.soft_weight} and {given.hard_weight}"
        )
    if not 0 <= given.label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), got {given.label_smoothing}")


def _check(
    name: str,
    tensor: Tensor | None,
    shape: tuple[int, ...],
    dtypes: tuple[torch.dtype, ...],
    device: torch.device,
) -> None:
    if tensor is None:
        return
    if tensor.shape != shape or tensor.dtype not in dtypes or tensor.device != device:
        raise ValueError(
            f"{name} must be {list(shape)} {' or '.join(map(_name, dtypes))} on {device}, "
            f"got {list(tensor.shape)} {_name(tensor.dtype)} on {tensor.device}"
        )


def _flat(tensor: Tensor, leading: int) -> Tensor:
    """Its leading dimensions as one; the usual case of one is left alone, which is faster."""
    tensor = tensor.detach() if tensor.requires_grad else tensor
    if leading == 1:
        return tensor
    return tensor.reshape(math.prod(tensor.shape[:leading]), *tensor.shape[leading:])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
