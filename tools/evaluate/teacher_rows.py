"""What the teacher said of some images of one tar, as its stored labels tell it.

n images, C classes, K of them stored.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.evaluate.metrics import Floats, log_softmax, log_sum_exp
from softlabel.trainer.labels import LabelledRows


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherRows:
    """Some images of a tar with what the teacher said of them, at temperature 1."""

    rows: LabelledRows
    num_classes: int
    head: Floats
    """[n, K] probabilities of the stored classes."""
    tail: Floats
    """[n] of all others together."""
    max_logit: NDArray[np.float32]
    """[n] the largest logit itself."""
    embedding: NDArray[np.float16] | None
    """[n, D]; None if the store has none."""

    def take(self, index: slice | NDArray[np.int64]) -> "TeacherRows":
        """Some of them."""
        return TeacherRows(
            rows=self.rows.take(index),
            num_classes=self.num_classes,
            head=self.head[index],
            tail=self.tail[index],
            max_logit=self.max_logit[index],
            embedding=None if self.embedding is None else self.embedding[index],
        )

    def log_probability(self) -> Floats:
        """[n, C], of a store that holds all classes; ValueError for another."""
        if self.rows.topk_class.shape[1] != self.num_classes:
            raise ValueError(f"the store holds {self.rows.topk_class.shape[1]} classes only")
        logits = np.empty((len(self.rows), self.num_classes))
        np.put_along_axis(
            logits,
            self.rows.topk_class.astype(np.int64),
            self.rows.topk_logit.astype(np.float64),
            1,
        )
        return log_softmax(logits)

    def log_odds(self) -> Floats:
        """[n] log(p / (1 - p)) of the first class."""
        # Its relative logit is 0; the tail is -inf where all classes are stored.
        tail = self.rows.tail_lse.astype(np.float64)[:, None]
        others = np.concatenate([self.rows.topk_logit[:, 1:].astype(np.float64), tail], 1)
        return -log_sum_exp(others)

    def energy(self) -> Floats:
        """[n] log-sum-exp of the logits themselves, the negative of Liu et al.'s energy."""
        # exp(relative logit of the first class) is 1, so its probability is 1 over the sum.
        return self.max_logit.astype(np.float64) - np.log(self.head[:, 0])
