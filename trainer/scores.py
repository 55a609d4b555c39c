"""How sure the teacher was of each image, as a rank within the whole pool."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.schema import Manifest
from softlabel.shards.statistics import probabilities

Score = Literal["p1", "entropy", "energy", "max-logit"]
"""All count upwards: the surer the higher. `entropy` and `energy` are therefore negated."""

NEEDED: Mapping[Score, tuple[str, ...]] = {
    "p1": ("topk_logit", "tail_lse"),
    "entropy": ("topk_logit", "tail_lse"),
    "energy": ("topk_logit", "tail_lse", "max_logit"),
    "max-logit": ("max_logit",),
}
"""The arrays of the store that a score is made of."""

_BINS = 1 << 16


def score_of(
    score: Score, arrays: Mapping[str, NDArray[Any]], manifest: Manifest
) -> NDArray[np.float64]:
    """[n] scores of n rows, from their first view at the temperature nearest to 1.

    Args:
        score: which.
        arrays: those of `NEEDED`, rows first.
        manifest: of their store.
    """
    if score == "max-logit":
        return arrays["max_logit"][:, 0].astype(np.float64)
    temperature = max(1.0, min(manifest.temperatures))
    num_not_stored = manifest.num_classes - manifest.top_k
    head, tail = probabilities(
        arrays["topk_logit"][:, 0],
        arrays["tail_lse"][:, 0],
        temperatures=manifest.temperatures,
        temperature=temperature,
        num_not_stored=num_not_stored,
    )
    if score == "energy":
        # z_max + t log sum exp((z - z_max) / t); the first class has probability 1 / that sum.
        scaled = temperature * np.log(head[:, 0])
        return np.asarray(arrays["max_logit"][:, 0] - scaled, np.float64)
    if score == "p1":
        # As log odds: near 1, where most of a sure teacher's are, probabilities run together.
        rest = np.maximum(head[:, 1:].sum(1) + tail, 1e-300)
        return np.asarray(np.log(head[:, 0]) - np.log(rest), np.float64)
    spread = np.maximum(tail, 1e-300) / max(num_not_stored, 1)
    safe = np.maximum(head, 1e-300)
    entropy: NDArray[np.float64] = -(head * np.log(safe)).sum(1) - tail * np.log(spread)
    return -np.log(np.maximum(entropy, 1e-300))


class Ranks:
    """The place of a score among all scores of a pool, from a histogram of fixed size.

    A bin holds the float32 numbers that share their first 16 bits, so it is as wide as 1/128 of its
    numbers wherever they lie; those of one bin share their mean rank.
    """

    def __init__(self) -> None:
        self._count = np.zeros(_BINS, np.int64)
        self._middle: NDArray[np.float64] | None = None

    def add(self, scores: NDArray[np.float64]) -> None:
        """Count some scores."""
        self._count += np.bincount(_bins(scores), minlength=_BINS)
        self._middle = None

    def of(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ranks from 0 (the least sure) to 1."""
        if self._middle is None:
            below = np.cumsum(self._count) - self._count
            self._middle = (below + self._count / 2) / max(int(self._count.sum()), 1)
        return np.asarray(self._middle[_bins(scores)], np.float64)


def _bins(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first 16 bits of each float32, with the sign turned so that their order is the number's.

    Source of the trick: Herf, "Radix tricks" (2001).
    """
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> np.uint32(16)).astype(np.int64)
