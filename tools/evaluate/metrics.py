"""The figures of an evaluation, image by image: float64 arrays in, float64 arrays out.

N images, C classes, K classes that the teacher's labels hold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15
"""Of the calibration error, as Guo et al. 2017 (arXiv:1706.04599) have it."""

Floats = NDArray[np.float64]


def log_softmax(logits: NDArray[np.floating]) -> Floats:
    """[N, C] log-probabilities."""
    z = logits.astype(np.float64)
    z -= z.max(-1, keepdims=True)
    shifted: Floats = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return shifted


def predictive_kl(
    head: Floats, tail: Floats, classes: NDArray[np.integer], log_student: Floats
) -> Floats:
    """KL(teacher || student) of each image, the classes not stored being one.

    That merging can only lower a divergence: with K < C it is a lower bound of the full one.

    Args:
        head: [N, K] the teacher's probabilities of the stored classes.
        tail: [N] of all others together; 0 where K = C.
        classes: [N, K] which classes are stored, unique within a row.
        log_student: [N, C] the student's log-probabilities.

    Returns:
        [N] in nats.
    """
    chosen, rest = _split(classes, log_student)
    total: Floats = _cross(head, chosen).sum(-1)
    return total if rest is None else total + _cross(tail, rest)


def total_variation(
    head: Floats, tail: Floats, classes: NDArray[np.integer], log_student: Floats
) -> Floats:
    """Half the sum of |p - q| over the classes of each image, those not stored being one.

    With K < C it is a lower bound of the full distance. Arguments as of `predictive_kl`.

    Returns:
        [N] in 0 to 1.
    """
    chosen, rest = _split(classes, log_student)
    total: Floats = np.abs(head - np.exp(chosen)).sum(-1)
    if rest is not None:
        total += np.abs(tail - np.exp(rest))
    return total / 2


def _split(classes: NDArray[np.integer], log_student: Floats) -> tuple[Floats, Floats | None]:
    """The student's log-probabilities [N, K] of the stored classes, and [N] of all others.

    These are summed over the other classes, never as 1 minus the rest, which would be rounding
    noise. None where K = C.
    """
    index = classes.astype(np.int64)
    chosen = np.take_along_axis(log_student, index, -1)
    if classes.shape[-1] == log_student.shape[-1]:
        return chosen, None
    rest = log_student.copy()
    np.put_along_axis(rest, index, -np.inf, -1)
    return chosen, log_sum_exp(rest)


def _cross(p: Floats, log_q: Floats) -> Floats:
    """p (log p - log q), which is 0 where p is 0 whatever q is; log q is finite."""
    found: Floats = p * (np.log(np.where(p > 0, p, 1.0)) - log_q)
    return found


def log_sum_exp(x: Floats) -> Floats:
    """[N, M] to [N]; some value of each row is finite."""
    peak = x.max(-1)
    total: Floats = peak + np.log(np.exp(x - peak[..., None]).sum(-1))
    return total


def log_odds(log_probability: Floats, number: NDArray[np.integer]) -> Floats:
    """log(p / (1 - p)) of one class of each image.

    1 - p is summed over the other classes: near p = 1, where 1 minus p is rounding noise, the
    result is as exact as anywhere else.

    Args:
        log_probability: [N, C], C >= 2; any constant may have been added to a row.
        number: [N] the class.

    Returns:
        [N]
    """
    index = number.astype(np.int64)[:, None]
    own = np.take_along_axis(log_probability, index, -1)[:, 0]
    others = log_probability.copy()
    np.put_along_axis(others, index, -np.inf, -1)
    found: Floats = own - log_sum_exp(others)
    return found


def overlap(first: NDArray[np.integer], second: NDArray[np.integer]) -> Floats:
    """[N] share of common classes between two lists of unique classes, [N, k] each."""
    common = (first[:, :, None] == second[:, None, :]).any(-1)
    found: Floats = common.mean(-1)
    return found


def own_label(log_probability: Floats, target: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """Negative log-likelihood and Brier score of each image's own label.

    Args:
        log_probability: [N, C]
        target: [N]; below 0 or from C on it is no class.

    Returns:
        [N] -log p of the target, in nats, and [N] sum over classes of (p_j - y_j)^2, y being 1 for
        the target and 0 elsewhere (Brier 1950); NaN without a target.
    """
    known = (target >= 0) & (target < log_probability.shape[-1])
    index = np.where(known, target, 0).astype(np.int64)[:, None]
    own = np.take_along_axis(log_probability, index, -1)[:, 0]
    squares = np.exp(2 * log_probability).sum(-1)
    brier = squares - 2 * np.exp(own) + 1
    return np.where(known, -own, np.nan), np.where(known, brier, np.nan)


def first_classes(log_probability: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """The most probable classes [N, count] in order, and their probabilities; ties by number."""
    count = min(count, log_probability.shape[-1])
    order = np.argsort(-log_probability, axis=-1, kind="stable")[..., :count]
    return order, np.exp(np.take_along_axis(log_probability, order, -1))


def hits(classes: NDArray[np.integer], target: NDArray[np.integer]) -> NDArray[np.bool_]:
    """[N] whether the target is among an image's classes [N, k]."""
    found: NDArray[np.bool_] = (classes == target[:, None]).any(-1)
    return found


def bin_of(confidence: Floats) -> NDArray[np.int64]:
    """[N] number of each confidence's bin: bin b is (b / 15, (b + 1) / 15], 0 is in bin 0."""
    edges = np.arange(1, NUM_BINS) / NUM_BINS
    return np.searchsorted(edges, confidence, side="left")


def equal_mass_bin_of(confidence: Floats) -> NDArray[np.int64]:
    """[N] number of each confidence's bin, the bins holding as many images each as can be.

    Sorted, bin b ends with image number ceil(N (b + 1) / 15); images of one confidence share a bin,
    so that the order of images decides nothing.
    """
    N = len(confidence)
    ends = -(-N * np.arange(1, NUM_BINS) // NUM_BINS) - 1
    return np.searchsorted(np.sort(confidence)[ends], confidence, side="left")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """Confidence against accuracy, bin by bin: [NUM_BINS] each, 0 where a bin is empty."""

    count: NDArray[np.int64]
    confidence: Floats
    accuracy: Floats

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over images of their bin's |confidence - accuracy|."""
        gap = np.abs(self.confidence - self.accuracy)
        return float((self.count * gap).sum() / max(self.count.sum(), 1))


def reliability(confidence: Floats, correct: NDArray[np.bool_]) -> Reliability:
    """Bins of equal width over the probability [N] of the class that was predicted."""
    number = bin_of(confidence)
    count = np.bincount(number, minlength=NUM_BINS)
    total = np.maximum(count, 1)
    return Reliability(
        count=count,
        confidence=np.bincount(number, confidence, NUM_BINS) / total,
        accuracy=np.bincount(number, correct.astype(np.float64), NUM_BINS) / total,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ByClass:
    """A mean within each class: [C] each, 0 where a class has no image."""

    count: NDArray[np.int64]
    mean: Floats


def by_class(number: NDArray[np.integer], value: NDArray[np.bool_], num_classes: int) -> ByClass:
    """The mean of `value` [N] over the images of each class."""
    count = np.bincount(number, minlength=num_classes)
    total = np.bincount(number, value.astype(np.float64), num_classes)
    return ByClass(count=count, mean=total / np.maximum(count, 1))
