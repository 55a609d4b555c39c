"""How well a score tells images of the collection (ID) from others (OOD).

A higher score says ID. All metrics take ID as the positive class. N images, C classes, G groups of
equal scores, B resamples.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.evaluate.bootstrap import RESAMPLES
from softlabel.tools.evaluate.metrics import Floats, log_sum_exp

SCORES = ("max_softmax", "energy", "max_logit", "knn")
METRICS = ("auroc", "fpr95", "aupr")
TPR = 0.95
"""Share of ID images that must pass for `fpr95`."""

Scores = tuple[Floats, Floats]
"""Of the ID and of the OOD images."""

_COUNTS_AT_ONCE = 1 << 20


def logit_scores(logits: NDArray[np.floating]) -> dict[str, Floats]:
    """Scores of logits [N, C], [N] each.

    max_softmax: the largest probability (Hendrycks & Gimpel 2017, arXiv:1610.02136).
    energy: log-sum-exp of the logits, the negative of the energy (Liu et al. 2020,
        arXiv:2010.03759).
    max_logit: the largest logit (Hendrycks et al. 2022, arXiv:1911.11132).
    """
    z = logits.astype(np.float64)
    largest, lse = z.max(-1), log_sum_exp(z)
    return {"max_softmax": np.exp(largest - lse), "energy": lse, "max_logit": largest}


def auroc(id_score: Floats, ood_score: Floats) -> float:
    """Area under the ROC curve: how often an ID image scores above an OOD one, ties counting half.

    ValueError without an image of each.
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_labelled(id_score, ood_score)))


def aupr(id_score: Floats, ood_score: Floats) -> float:
    """Average precision with ID as the positive class; depends on how many there are of each.

    ValueError without an image of each.
    """
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_labelled(id_score, ood_score)))


def fpr95(id_score: Floats, ood_score: Floats) -> float:
    """Share of OOD images that pass the highest threshold which 95 % of ID images pass.

    That is the 5 % quantile of the ID scores; lower is better. ValueError without an image of each.
    """
    _labelled(id_score, ood_score)
    passed = Ranking(id_score, ood_score).passed(*_once(id_score, ood_score))
    return float(_fpr95(*passed)[0])


def values(id_score: Floats, ood_score: Floats) -> dict[str, float]:
    """All METRICS of one score."""
    return {
        "auroc": auroc(id_score, ood_score),
        "fpr95": fpr95(id_score, ood_score),
        "aupr": aupr(id_score, ood_score),
    }


def resampled(scores: Mapping[str, Scores], *, seed: int = 0) -> dict[str, Floats]:
    """Metrics of RESAMPLES resamples of the ID and of the OOD images, each drawn for itself.

    Args:
        scores: by name, each of the same images: those of ID [N] and those of OOD [M].
        seed: equal seeds and numbers of images give the same resamples, so that the values of two
            models can be subtracted.

    Returns:
        By `score/metric`, [B] each.
    """
    rankings = {name: Ranking(*both) for name, both in scores.items()}
    sizes = {(len(both[0]), len(both[1])) for both in scores.values()}
    if len(sizes) != 1:
        raise ValueError(f"wanted scores of the same images, got {sorted(sizes)}")
    parts: dict[str, list[Floats]] = {}
    for counts in _resamples(*sizes.pop(), seed):
        for name, ranking in rankings.items():
            for metric, found in ranking.metrics(*counts).items():
                parts.setdefault(f"{name}/{metric}", []).append(found)
    return {name: np.concatenate(found) for name, found in parts.items()}


def roc(id_score: Floats, ood_score: Floats) -> tuple[Floats, Floats]:
    """Share of OOD and of ID images that pass, from no threshold met to all: [G + 1] each."""
    passed, wrong = Ranking(id_score, ood_score).passed(*_once(id_score, ood_score))
    start = np.zeros(1)
    return (
        np.concatenate([start, wrong[0] / wrong[0, -1]]),
        np.concatenate([start, passed[0] / passed[0, -1]]),
    )


class Ranking:
    """Scores sorted once, for the metrics of any weights of the images."""

    def __init__(self, id_score: Floats, ood_score: Floats) -> None:
        """[N] of the ID and [M] of the OOD images."""
        score = np.concatenate([id_score, ood_score])
        self._order = np.argsort(-score, kind="stable")
        ordered = score[self._order]
        self._is_id = self._order < len(id_score)
        self._last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))

    def passed(self, id_weight: Floats, ood_weight: Floats) -> tuple[Floats, Floats]:
        """Weight of the ID and of the OOD images at or above each distinct score, [B, G] each.

        Args:
            id_weight: [B, N], 0 or more, in each row some above 0.
            ood_weight: [B, M] likewise.
        """
        weight = np.concatenate([id_weight, ood_weight], 1)[:, self._order]
        return (
            np.cumsum(np.where(self._is_id, weight, 0.0), 1)[:, self._last],
            np.cumsum(np.where(self._is_id, 0.0, weight), 1)[:, self._last],
        )

    def metrics(self, id_weight: Floats, ood_weight: Floats) -> dict[str, Floats]:
        """METRICS of images with weights as `passed` has them, [B] each; scikit-learn's with
        `sample_weight`."""
        passed, wrong = self.passed(id_weight, ood_weight)
        return {
            "auroc": _auroc(passed, wrong),
            "fpr95": _fpr95(passed, wrong),
            "aupr": _aupr(passed, wrong),
        }


def _auroc(passed: Floats, wrong: Floats) -> Floats:
    area: Floats = (_steps(wrong) * (passed - _steps(passed) / 2)).sum(1)
    return area / (passed[:, -1] * wrong[:, -1])


def _aupr(passed: Floats, wrong: Floats) -> Floats:
    total = passed + wrong
    precision = passed / np.where(total > 0, total, 1.0)
    area: Floats = (_steps(passed) * precision).sum(1)
    return area / passed[:, -1]


def _fpr95(passed: Floats, wrong: Floats) -> Floats:
    # 0.95 n may lie a rounding above a whole number of images.
    at = (passed >= (TPR - 1e-12) * passed[:, -1:]).argmax(1)
    rates: Floats = wrong[np.arange(len(wrong)), at] / wrong[:, -1]
    return rates


def _steps(passed: Floats) -> Floats:
    return np.diff(passed, axis=1, prepend=0.0)


def _labelled(id_score: Floats, ood_score: Floats) -> tuple[NDArray[np.int64], Floats]:
    if not len(id_score) or not len(ood_score):
        raise ValueError(f"wanted ID and OOD images, got {len(id_score)} and {len(ood_score)}")
    label = np.repeat([1, 0], [len(id_score), len(ood_score)])
    return label, np.concatenate([id_score, ood_score])


def _once(id_score: Floats, ood_score: Floats) -> tuple[Floats, Floats]:
    return np.ones((1, len(id_score))), np.ones((1, len(ood_score)))


def _resamples(num_id: int, num_ood: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """How often each ID and each OOD image is drawn, [b, N] each, RESAMPLES rows in all."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _COUNTS_AT_ONCE // (num_id + num_ood))
    for first in range(0, RESAMPLES, at_once):
        b = min(at_once, RESAMPLES - first)
        drawn = [(_drawn(rng, num_id), _drawn(rng, num_ood)) for _ in range(b)]
        yield np.stack([row for row, _ in drawn]), np.stack([row for _, row in drawn])


def _drawn(rng: np.random.Generator, num: int) -> Floats:
    return np.bincount(rng.integers(num, size=num), minlength=num).astype(np.float64)
