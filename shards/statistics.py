"""What labels say about their teacher: confidence, and how much of it lies outside the top k."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.tails import tail_at

WANTED_TAIL = 0.05
"""Mean probability outside the stored classes below which top-k labels are near the whole truth."""

SATURATED = 0.999
"""A first class with more probability than this makes a label nearly a hard one."""


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


def entropies(
    head: NDArray[np.float64], tail: NDArray[np.float64], *, num_not_stored: int
) -> NDArray[np.float64]:
    """Entropy in nats [...] of `probabilities` [..., K] and [...].

    The tail counts as spread evenly over the classes not stored: the most entropy it can have, so
    an upper bound, and exact where every class is stored.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(head > 0, head * np.log(head), 0).sum(-1)
        spread = tail / max(num_not_stored, 1)
        return np.asarray(entropy - np.where(tail > 0, tail * np.log(spread), 0))


@dataclass
class LabelStatistics:
    """Sums over the labels of many tars; `add` them, then read the means."""

    temperatures: tuple[float, ...]
    num_not_stored: int
    at: float | None = None
    """The softmax's temperature; None: the one nearest to 1."""
    rows: int = 0
    saturated: int = 0
    tail_sum: float = 0.0
    entropy_sum: float = 0.0
    prefix_sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """Sum over rows of the probability within the first 1, 2, ... K classes."""
    last_sum: float = 0.0
    """Sum over rows of the K-th probability."""

    def add(self, topk_logit: NDArray[np.float16], tail_lse: NDArray[np.float32]) -> None:
        """Count labels [..., K], [..., S], each view as a row."""
        head, tail = probabilities(
            topk_logit.reshape(-1, topk_logit.shape[-1]),
            tail_lse.reshape(-1, tail_lse.shape[-1]),
            temperatures=self.temperatures,
            temperature=self.temperature,
            num_not_stored=self.num_not_stored,
        )
        self.add_probabilities(head, tail)

    def add_probabilities(self, head: NDArray[np.float64], tail: NDArray[np.float64]) -> None:
        """Count labels whose `probabilities` [N, K], [N] at this temperature are known already."""
        if not len(head):
            return
        self.rows += len(head)
        self.saturated += int((head[:, 0] > SATURATED).sum())
        self.tail_sum += float(tail.sum())
        self.last_sum += float(head[:, -1].sum())
        self._add_prefix(np.cumsum(head, axis=1).sum(0))
        self.entropy_sum += float(entropies(head, tail, num_not_stored=self.num_not_stored).sum())

    def merge(self, other: "LabelStatistics") -> None:
        """Count the labels that another has counted, of the same temperatures and classes."""
        self.rows += other.rows
        self.saturated += other.saturated
        self.tail_sum += other.tail_sum
        self.last_sum += other.last_sum
        self.entropy_sum += other.entropy_sum
        if other.rows:
            self._add_prefix(other.prefix_sum)

    def _add_prefix(self, prefix: NDArray[np.float64]) -> None:
        self.prefix_sum = self.prefix_sum + prefix if len(self.prefix_sum) else prefix

    @property
    def temperature(self) -> float:
        """That of the softmax; by default 1, or the smallest stored one where that is larger."""
        return max(1.0, min(self.temperatures)) if self.at is None else self.at

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
        """Share of labels whose first class has more than `SATURATED`."""
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


def effective_number(count: NDArray[Any]) -> float:
    """exp of the entropy of a histogram: how many classes it has, were they all as frequent.

    Hill's number of order 1 (Hill 1973, "Diversity and evenness"): 1 where all images have one
    class, C where all classes are as frequent. N images have N at most: small sources come out low.

    Args:
        count: [C] counts or shares; need not sum to 1. All zeros have 0.
    """
    total = float(count.sum())
    share = count[count > 0] / max(total, 1e-300)
    return float(np.exp(-(share * np.log(share)).sum())) if len(share) else 0.0
