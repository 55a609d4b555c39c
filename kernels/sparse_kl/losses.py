"""What sparse_kl returns for a batch: the loss and the two parts it is made of."""

from typing import NamedTuple

from torch import Tensor


class RowLosses(NamedTuple):
    """[...] losses of rows in nats, or their reductions; float32 (float64 for float64 logits)."""

    total: Tensor
    """soft_weight * soft + hard_weight * hard: what is minimised."""
    soft: Tensor
    """T**2 * divergence from the stored classes; 0 where it was not asked for. Detached."""
    hard: Tensor
    """Cross-entropy with the class label; 0 where it was not asked for. Detached."""
