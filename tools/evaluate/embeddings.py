"""How alike a student's features and the teacher's embeddings arrange the same images.

N images, n of them kept for pairwise figures, D_t and D_s widths of teacher and student.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.evaluate.bootstrap import SHARE, Figure, figure_of, ratio, resample_counts
from softlabel.tools.evaluate.metrics import Floats

KEPT = 2000
"""Images at most whose features are kept: those with the smallest key hashes."""

RESAMPLES = 400
"""Fewer than of other figures: each takes some products of n x n matrices."""

_NO_SPREAD = 1e-20
"""Variance of cosines that is rounding only."""

_Pairwise = Callable[[Floats], Floats]


@dataclass
class _Moments:
    """Sums and products of sums of two sets of features, about the first images' means."""

    shift: tuple[Floats, Floats]
    count: int = 0
    sums: list[Floats] = field(default_factory=list)
    products: list[Floats] = field(default_factory=list)

    def add(self, teacher: Floats, student: Floats) -> None:
        x, y = teacher - self.shift[0], student - self.shift[1]
        sums, products = [x.sum(0), y.sum(0)], [x.T @ y, x.T @ x, y.T @ y]
        if not self.count:
            self.sums, self.products = sums, products
        else:
            totals = (*self.sums, *self.products)
            for total, part in zip(totals, (*sums, *products), strict=True):
                total += part
        self.count += len(x)

    def cka(self) -> float:
        """||X'Y||^2 / (||X'X|| ||Y'Y||), X and Y centred; NaN where one never changes."""
        x, y = self.sums
        outer = (np.outer(x, y), np.outer(x, x), np.outer(y, y))
        centred = [p - o / self.count for p, o in zip(self.products, outer, strict=True)]
        cross, own_x, own_y = (float(np.linalg.norm(c)) for c in centred)
        # Of features that never change only rounding is left.
        if any(
            own <= 1e-12 * float(np.linalg.norm(p))
            for own, p in zip((own_x, own_y), self.products[1:], strict=True)
        ):
            return float("nan")
        return cross**2 / (own_x * own_y)


class Embeddings:
    """Features of student and teacher of the same images, taken in batch by batch.

    Memory does not grow with the images: moments of D_t x D_s, and `KEPT` images' features.
    """

    def __init__(self) -> None:
        self._moments: _Moments | None = None
        self._teacher: list[NDArray[np.float32]] = []
        self._student: list[NDArray[np.float32]] = []
        self._key_hash: list[NDArray[np.uint64]] = []

    @property
    def count(self) -> int:
        """N"""
        return 0 if self._moments is None else self._moments.count

    def add(
        self,
        teacher: NDArray[np.floating],
        student: NDArray[np.floating],
        *,
        key_hash: NDArray[np.uint64],
    ) -> None:
        """Take in a batch: [b, D_t], [b, D_s] and [b]."""
        x, y = teacher.astype(np.float64), student.astype(np.float64)
        if self._moments is None:
            self._moments = _Moments(shift=(x.mean(0), y.mean(0)))
        self._moments.add(x, y)
        self._teacher.append(teacher.astype(np.float32))
        self._student.append(student.astype(np.float32))
        self._key_hash.append(key_hash)
        if sum(map(len, self._key_hash)) > 2 * KEPT:
            self._thin()

    def cka(self) -> float:
        """Linear centred kernel alignment over all images (Kornblith et al. 2019, section 3).

        0 to 1; 1 where one set of features is a rotated and scaled copy of the other; NaN where one
        never changes. arXiv:1905.00414; Stanton et al. 2021 (arXiv:2106.05945) use it of students.
        """
        return float("nan") if self._moments is None else self._moments.cka()

    def kept(self) -> tuple[Floats, Floats]:
        """The kept images' features, [n, D_t] and [n, D_s], in the order of key hashes."""
        self._thin()
        return self._teacher[0].astype(np.float64), self._student[0].astype(np.float64)

    def _thin(self) -> None:
        key_hash = np.concatenate(self._key_hash)
        chosen = np.argsort(key_hash, kind="stable")[:KEPT]
        self._key_hash = [key_hash[chosen]]
        self._teacher = [np.concatenate(self._teacher)[chosen]]
        self._student = [np.concatenate(self._student)[chosen]]


def similarity_figures(
    found: Mapping[str, Embeddings], *, seed: int = 0
) -> tuple[dict[str, dict[str, Figure]], dict[str, Figure]]:
    """`cka` and `cosine_correlation` by role, and student minus control by name of figure.

    The CKA is over all images. Its interval, like the correlation and its interval, is of at most
    `KEPT` images: wider than all images would give. It is the value plus what resamples change an
    unbiased estimate by: the value itself grows when images are drawn twice.
    """
    values: dict[str, dict[str, float]] = {}
    resampled: dict[str, dict[str, Floats]] = {}
    kept = 0
    for role, embeddings in found.items():
        teacher, student = embeddings.kept()
        kept = len(teacher)
        values[role], resampled[role] = {}, {}
        for name, value, over in _measures(embeddings, teacher, student):
            of_kept = float(over(np.ones((1, kept)))[0])
            if np.isfinite(value):
                drawn = resample_counts(kept, seed=seed, resamples=RESAMPLES)
                spread = np.concatenate([over(counts) for counts in drawn]) - of_kept
                values[role][name], resampled[role][name] = value, value + spread
    count = next(iter(found.values())).count if found else 0
    return (
        {
            role: {n: _figure(n, v, resampled[role][n], count, kept) for n, v in own.items()}
            for role, own in values.items()
        },
        {
            name: _figure(
                name,
                value - values["control"][name],
                resampled["student"][name] - resampled["control"][name],
                count,
                kept,
                is_difference=True,
            )
            for name, value in values.get("student", {}).items()
            if name in values.get("control", {})
        },
    )


def _figure(
    name: str,
    value: float,
    resampled: Floats,
    count: int,
    kept: int,
    *,
    is_difference: bool = False,
) -> Figure:
    """CKA's interval is widened to hold the value, and is everything where nothing is known."""
    if name != "cka":
        return figure_of(value, resampled, n=kept)
    span = (-1.0, 1.0) if is_difference else SHARE
    if np.isnan(resampled).all():
        resampled = np.resize(span, RESAMPLES)
    found = figure_of(
        value, resampled, n=count, span=span, interval_n=kept if kept < count else None
    )
    return replace(found, low=min(found.low, value), high=max(found.high, value))


def _measures(
    embeddings: Embeddings, teacher: Floats, student: Floats
) -> Iterator[tuple[str, float, _Pairwise]]:
    """Name, value, and function of counts, of each figure."""
    yield "cka", embeddings.cka(), _alignment(teacher, student)
    correlation = _cosine_correlation(teacher, student)
    yield "cosine_correlation", float(correlation(np.ones((1, len(teacher))))[0]), correlation


def _alignment(x: Floats, y: Floats) -> _Pairwise:
    """Unbiased CKA of weighted images, from their Gram matrices K and L without diagonals.

    HSIC as Song et al. 2007 estimate it without bias, in CKA's ratio as Nguyen et al. 2021
    (arXiv:2010.15327) have it; both written from memory. HSIC is
    mean K_ij L_ij - 2 mean K_ij L_iq + mean K_ij L_qr over pairs, triples and quadruples of
    different images: one that was drawn twice makes no pair with itself. NaN for fewer than 4.
    Both sets are centred over the images there are, not over those drawn.
    """
    K, L = (_gram(v - v.mean(0)) for v in (x, y))
    for gram in (K, L):
        np.fill_diagonal(gram, 0.0)
    products = {"cross": K * L, "x": K * K, "y": L * L}

    def over(counts: Floats) -> Floats:
        drawn_k, drawn_l = counts @ K, counts @ L
        sides = {"cross": (drawn_k, drawn_l), "x": (drawn_k, drawn_k), "y": (drawn_l, drawn_l)}
        found = {name: _hsic(counts, products[name], *both) for name, both in sides.items()}
        spread = np.sqrt(np.maximum(found["x"], 0) * np.maximum(found["y"], 0))
        return ratio(found["cross"], spread)

    return over


def _hsic(w: Floats, product: Floats, k: Floats, l: Floats) -> Floats:  # noqa: E741
    """[b] from counts w [b, n], K * L [n, n], and w K and w L [b, n]; K and L are symmetric.

    Sums over all pairs, less those in which an image comes twice.
    """
    w2 = w * w
    m, s2, s3, s4 = (power.sum(1) for power in (w, w2, w2 * w, w2 * w2))
    drawn = w @ product
    pairs, uneven = (drawn * w).sum(1), (drawn * w2).sum(1)
    both = ((w2 @ product) * w2).sum(1)
    triples = (w * k * l).sum(1) - uneven
    whole = (w * k).sum(1) * (w * l).sum(1)
    # An image of the first pair may be one of the second in four ways, both in two.
    quadruples = whole - 4 * (w2 * k * l).sum(1) + 2 * both
    return (
        ratio(pairs, m**2 - s2)
        - 2 * ratio(triples, m**3 - 3 * m * s2 + 2 * s3)
        + ratio(quadruples, m**4 - 6 * m**2 * s2 + 3 * s2**2 + 8 * m * s3 - 6 * s4)
    )


def _gram(x: Floats) -> Floats:
    """x x', scaled to a mean diagonal of 1 where it is not zero."""
    gram: Floats = x @ x.T
    scale = float(np.trace(gram)) / max(len(x), 1)
    return gram / scale if scale > 0 else gram


def _cosine_correlation(x: Floats, y: Floats) -> _Pairwise:
    """Pearson's correlation, over pairs of different images, of the two sets' cosines.

    An image drawn twice makes no pair with itself.
    """
    A, B = _cosines(x), _cosines(y)
    squares = {"aa": A * A, "bb": B * B, "ab": A * B}

    def over(counts: Floats) -> Floats:
        pairs = counts.sum(1) ** 2 - (counts**2).sum(1)
        a, b = (ratio(((counts @ M) * counts).sum(1), pairs) for M in (A, B))
        second = {n: ratio(((counts @ M) * counts).sum(1), pairs) for n, M in squares.items()}
        aa, bb = (second[n] - v * v for n, v in (("aa", a), ("bb", b)))
        known = (aa > _NO_SPREAD) & (bb > _NO_SPREAD)
        spread = np.sqrt(np.where(known, aa * bb, 0.0))
        return ratio(second["ab"] - a * b, spread)

    return over


def _cosines(x: Floats) -> Floats:
    """[n, n] cosines of pairs less their mean, which no correlation depends on; diagonal 0."""
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(norm > 0, norm, 1.0)
    cosines: Floats = unit @ unit.T
    n = len(x)
    if n > 1:
        cosines -= (cosines.sum() - np.trace(cosines)) / (n * (n - 1))
    np.fill_diagonal(cosines, 0.0)
    return cosines
