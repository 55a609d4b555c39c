"""OOD scores while they come in, batch by batch and role by role."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.statistics import probabilities
from softlabel.tools.evaluate.metrics import Floats
from softlabel.tools.evaluate.ood.neighbours import Neighbours
from softlabel.tools.evaluate.teacher_rows import TeacherRows

TEACHER = "teacher"
_KNN = "knn"


class CollectedScores:
    """Scores of some images, role by role; embeddings too, or at once their nearness to a bank."""

    def __init__(
        self, kinds: Mapping[str, str], banks: Mapping[str, Neighbours] | None = None
    ) -> None:
        self.count = 0
        self._kinds = kinds
        self._banks = banks
        self._scores: dict[str, dict[str, list[Floats]]] = {}
        self._embeddings: dict[str, list[NDArray[np.floating]]] = {}

    def add(
        self, role: str, scores: Mapping[str, Floats], embedding: NDArray[np.floating] | None
    ) -> None:
        """One batch of one role."""
        own = self._scores.setdefault(role, {})
        for name, found in scores.items():
            # Of probabilities the log-sum-exp is 0, whatever the image.
            if name != "energy" or self._kinds.get(role) != "probabilities":
                own.setdefault(name, []).append(found)
        if embedding is None:
            return
        if self._banks is None:
            self._embeddings.setdefault(role, []).append(embedding)
        elif role in self._banks:
            own.setdefault(_KNN, []).append(self._banks[role].scores(embedding))

    def add_labels(self, rows: TeacherRows) -> None:
        """The teacher's, from labels."""
        self.add(TEACHER, _scores(rows.head[:, 0], rows.max_logit), rows.embedding)

    def banks(self) -> dict[str, Neighbours]:
        """The embeddings as banks, where there are two or more."""
        joined = {role: np.concatenate(parts) for role, parts in self._embeddings.items()}
        return {role: Neighbours(rows) for role, rows in joined.items() if len(rows) > 1}

    def scores(self, banks: Mapping[str, Neighbours] | None = None) -> dict[str, dict[str, Floats]]:
        """By role and name, [N] each; with the banks' own nearness."""
        found = {
            role: {name: np.concatenate(parts) for name, parts in own.items()}
            for role, own in self._scores.items()
        }
        for role, bank in (banks or {}).items():
            found[role][_KNN] = bank.own_scores()
        return found


def label_scores(logits: NDArray[np.float32]) -> dict[str, Floats]:
    """Scores of the teacher's logits [N, C], computed as from a label that holds all classes.

    To the last bit: saturated scores of ID and of OOD images are then equal, as they should be.
    """
    largest = logits.max(-1)
    relative = np.sort(logits - largest[:, None], -1)[:, ::-1].astype(np.float16)
    nothing = np.full((len(logits), 1), -np.inf, np.float32)
    head, _ = probabilities(
        np.ascontiguousarray(relative),
        nothing,
        temperatures=(1.0,),
        temperature=1.0,
        num_not_stored=0,
    )
    return _scores(head[:, 0], largest)


def _scores(first: Floats, largest: NDArray[np.float32]) -> dict[str, Floats]:
    """From the probability of the first class and its logit."""
    z = largest.astype(np.float64)
    return {"max_softmax": first, "energy": z - np.log(first), "max_logit": z}
