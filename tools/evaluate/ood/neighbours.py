"""The nearest-neighbour score: how close an embedding lies to one of the collection's."""

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.evaluate.metrics import Floats

_ROWS_AT_ONCE = 1024


class Neighbours:
    """Cosine similarity to the nearest of M embeddings (k = 1; Sun et al. 2022, arXiv:2204.06507).

    The paper's bank is the training set; a label store's is the ID images themselves, each of which
    is then compared with all the others.
    """

    def __init__(self, bank: NDArray[np.floating]) -> None:
        """`bank` [M, D]."""
        self._bank = _directions(bank)

    def scores(self, embeddings: NDArray[np.floating]) -> Floats:
        """[N, D] to [N]: the largest cosine, in -1..1; 0 for an embedding of length 0."""
        return self._nearest(_directions(embeddings), own=False)

    def own_scores(self) -> Floats:
        """[M]: each of the bank against all others; ValueError for a bank of one."""
        if len(self._bank) < 2:
            raise ValueError(f"wanted two embeddings or more, got {len(self._bank)}")
        return self._nearest(self._bank, own=True)

    def _nearest(self, queries: NDArray[np.float32], *, own: bool) -> Floats:
        found = np.empty(len(queries))
        for low in range(0, len(queries), _ROWS_AT_ONCE):
            cosine = queries[low : low + _ROWS_AT_ONCE] @ self._bank.T
            if own:
                rows = np.arange(len(cosine))
                cosine[rows, low + rows] = -np.inf
            found[low : low + len(cosine)] = cosine.max(1)
        return found


def _directions(embeddings: NDArray[np.floating]) -> NDArray[np.float32]:
    rows = embeddings.astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1.0)).astype(np.float32)
