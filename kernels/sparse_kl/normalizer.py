"""What reduction "mean" divides by: a number where there is one, else a tensor never read back."""

import math

import torch
from torch import Tensor


def checked_normalizer(
    normalizer: float | Tensor | None, reduction: str, device: torch.device
) -> tuple[float | None, Tensor | None]:
    """The normalizer as (number, tensor), at most one of them given; refuses what is neither."""
    if normalizer is None:
        return None, None
    if reduction != "mean":
        raise ValueError(f"normalizer belongs to reduction 'mean', got reduction {reduction!r}")
    if isinstance(normalizer, Tensor):
        return None, one_number("normalizer", normalizer, device)
    if not 0 < normalizer < math.inf:
        raise ValueError(f"normalizer must be positive and finite, got {normalizer}")
    return float(normalizer), None


def one_number(name: str, number: Tensor, device: torch.device) -> Tensor:
    """A tensor of one float32 element as a scalar."""
    if number.numel() != 1 or number.dtype != torch.float32 or number.device != device:
        raise ValueError(
            f"{name} must be a number or one float32 element on {device}, "
            f"got {list(number.shape)} {number.dtype} on {number.device}"
        )
    return number.detach().reshape(())


def mean_factor(
    num_rows: int, divisor: float | None, total: Tensor | None
) -> tuple[float, Tensor | None]:
    """1 / divisor, or 1 / the sum of `total`, or 1 / num_rows: a number, and a tensor or None.

    The factor is the product of the two.
    """
    if divisor is not None:
        return 1 / divisor, None
    if total is None:
        return 1 / max(1, num_rows), None
    total = total.sum(dtype=torch.float32)
    # Of no weight at all the mean is 0.
    return 1.0, 1 / torch.where(total == 0, 1.0, total)
