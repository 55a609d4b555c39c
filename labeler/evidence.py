"""How well a recipe suits a teacher, measured on a few images without knowing what they show.

N images, C classes. High confidence alone proves nothing: raw 0..255 pixels can saturate a network
into being sure of one wrong class. What a wrong recipe can hardly fake is an answer that stays when
the image is mirrored and yet differs between images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Figures of one recipe, for each of N images; probabilities at temperature 1."""

    confidence: Array
    """[N] largest probability."""
    entropy: Array
    """[N] entropy of the prediction, in nats."""
    consistency: Array
    """[N] probability that the image and its mirror image are given the same class, less the same
    for other images' mirror images: near 1 for sure, steady and diverse answers, 0 for empty ones.
    """
    hits: Array
    """[M] 1 where top-1 is the target, else 0, for the M images that have one."""
    num_predicted: int
    """Different top-1 classes among the N images."""


def softmax(logits: NDArray[np.float32]) -> Array:
    """Probabilities [N, C] at temperature 1; a row with a NaN or an infinity becomes uniform."""
    z = logits.astype(np.float64)
    z = np.where(np.isfinite(z).all(axis=1, keepdims=True), z, 0.0)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def gather_evidence(
    logits: NDArray[np.float32], mirrored: NDArray[np.float32], targets: NDArray[np.int64]
) -> Evidence:
    """Measure one recipe.

    Args:
        logits: [N, C] of the images.
        mirrored: [N, C] of the same images, mirrored.
        targets: [N] true classes, -1 where unknown.
    """
    p, q = softmax(logits), softmax(mirrored)
    top = p.argmax(axis=1)
    agreement = p @ q.T
    N = len(p)
    same = np.diag(agreement)
    others = (agreement.sum(axis=1) - same) / max(N - 1, 1)
    known = targets >= 0
    return Evidence(
        confidence=p.max(axis=1),
        entropy=-(p * np.log(np.maximum(p, 1e-300))).sum(axis=1),
        consistency=same - others,
        hits=(top[known] == targets[known]).astype(np.float64),
        num_predicted=len(np.unique(top)),
    )


SMALLEST_STEP = 0.05
"""Means nearer to each other than this tell no gross mistake, however steady the difference."""


def clearly_above(a: Array, b: Array) -> bool:
    """Whether a's mean lies above b's by `SMALLEST_STEP`, and by two standard errors.

    Args:
        a: [N] figures for N images.
        b: [N] the same figures under another recipe, for the same images.
    """
    if len(a) < 2:
        return False
    difference = a - b
    error = difference.std(ddof=1) / np.sqrt(len(a))
    return bool(difference.mean() > max(SMALLEST_STEP, 2 * error))


def looks_like_probabilities(logits: NDArray[np.float32]) -> bool:
    """Whether what was taken for logits can't be: every row non-negative and summing to 1."""
    sums = logits.sum(axis=1, dtype=np.float64)
    return bool((logits >= 0).all() and np.allclose(sums, 1, atol=1e-3))
