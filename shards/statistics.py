"""What labels say about their teacher: confidence, and how much of it lies outside the top k."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.tails import tail_at

WANTED_TAIL = 0.05
"""Mean probability outside the stored classes below which top-k labels are near the whole truth."""


def probabilities(
    topk_logit: NDArray[np.float16],
    tail_lse: NDArray[np.float32],
    *,
    temperatures: Sequence[float],
    temperature: float,
    num_not_stored: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The teacher's probabilities of the stored classes, and of all others together.

    Args:
        topk_logit: [..., K] relative logits as stored.
        tail_lse: [..., S] as stored.
        temperatures: the S stored temperatures.
        temperature: the softmax's, at least the smallest stored.
        num_not_stored: C - K.

    Returns:
        [..., K] and [...], which sum to 1. The tail comes from its own stored sum, never as 1 minus
        the rest, which would be rounding noise.
    """
    tail = tail_at(
        tail_lse,
        temperatures=temperatures,
        temperature=temperature,
        num_not_stored=num_not_stored,
    ).astype(np.float64)
    scaled = topk_logit.astype(np.float64) / temperature
    head_sum = np.exp(scaled).sum(-1)  # the largest is exp(0): no overflow
    total = head_sum + np.exp(tail)
    return np.exp(scaled) / total[..., None], np.exp(tail) / total


@dataclass
class LabelStatistics:
    """Sums over the labels of many tars; `add` them, then read the means."""

    temperatures: tuple[float, ...]
    num_not_stored: int
    rows: int = 0
    saturated: int = 0
    tail_sum: float = 0.0
    entropy_sum: float = 0.0
    prefix_sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Sum over rows of the probability within the first 1, 2, ... K classes."""
    last_sum: float = 0.0
    """Sum over rows of the K-th probability."""

    def add(self, topk_logit: NDArray[np.float16], tail_lse: NDArray[np.float32]) -> None:
        """Count labels [..., K], [..., S], each view as a row, at the temperature nearest to 1."""
        head, tail = probabilities(
            topk_logit.reshape(-1, topk_logit.shape[-1]),
            tail_lse.reshape(-1, tail_lse.shape[-1]),
            temperatures=self.temperatures,
            temperature=self.temperature,
            num_not_stored=self.num_not_stored,
        )
        if not len(head):
            return
        self.rows += len(head)
        self.saturated += int((head[:, 0] > 0.999).sum())
        self.tail_sum += float(tail.sum())
        self.last_sum += float(head[:, -1].sum())
        prefix = np.cumsum(head, axis=1).sum(0)
        self.prefix_sum = self.prefix_sum + prefix if len(self.prefix_sum) else prefix
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.where(head > 0, head * np.log(head), 0).sum(1)
            spread = tail / max(self.num_not_stored, 1)
            entropy -= np.where(tail > 0, tail * np.log(spread), 0)
        self.entropy_sum += float(entropy.sum())

    @property
    def temperature(self) -> float:
        """1, or the smallest stored temperature where that is larger."""
        return max(1.0, min(self.temperatures))

    @property
    def mean_tail(self) -> float:
        """Mean probability of the classes not stored."""
        return self.tail_sum / max(self.rows, 1)

    @property
    def mean_entropy(self) -> float:
        """Mean entropy in nats, taking the tail as spread evenly: an upper bound."""
        return self.entropy_sum / max(self.rows, 1)

    @property
    def mean_confidence(self) -> float:
        """Mean probability of the first class."""
        return float(self.prefix_sum[0]) / max(self.rows, 1) if len(self.prefix_sum) else 0.0

    @property
    def saturated_share(self) -> float:
        """Share of labels whose first class has more than 0.999: nearly a hard label."""
        return self.saturated / max(self.rows, 1)

    def wanted_top_k(self) -> tuple[int, bool]:
        """The K that would bring the mean tail under 5 %, and whether it is exact.

        Within the stored classes it is counted; beyond them a lower bound, since no further class
        can have more than the last stored one.
        """
        prefix = self.prefix_sum / max(self.rows, 1)
        enough = np.flatnonzero(prefix >= 1 - WANTED_TAIL)
        if len(enough):
            return int(enough[0]) + 1, True
        missing = self.mean_tail - WANTED_TAIL
        step = max(self.last_sum / max(self.rows, 1), 1e-12)
        return len(prefix) + min(int(np.ceil(missing / step)), self.num_not_stored), False
