"""How often each image comes in each epoch of a weighted stream: deterministic thinning.

Our reconstruction of "sample preferentially points that appear related" of Begon and Geurts 2022
(arXiv 2201.06507), whose text with its scores and weights was not found: the weight is ours, after
class-balanced transfer sets (Nayak et al., WACV 2021) and annealed because balancing to the end
cost accuracy elsewhere (the "Balanced" row of MosaicKD's table).

    w_i = exp(beta (r_i - 1)) * (q_c + 1/N)**-gamma * v_source
    n_i = floor(w_i / kappa) + [u(seed, epoch, key_i) < the rest]

r is the rank of a score of confidence, q_c the share of the pool that is called c, v the weight of
the source, kappa the mean weight: so an epoch has about as many images as the pool. Weights are cut
at 20 times that mean, which is taken after the cut. gamma falls to 0 with the position in the
stream, tar by tar, so that it is known without counting what came before; nothing depends on
workers, ranks or resume.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.trainer.order import Ints, tar_order
from softlabel.trainer.pool import Pool, PoolRows

LARGEST = 20.0
"""Times the mean weight: where weights are cut, hence the most often an image comes in an epoch."""

LEAST_YIELD = 0.01
"""Images expected of a tar, as a share of those in it, below which it is not read at all."""

_GAMMA_STEPS = 256
_MOST_CUTS = 10_000
_CUT_PRECISION = 1e-12
_KEPT_EPOCHS = 4
_DRAW_KEY = 0x64726177  # sets these numbers apart from those of orders and views

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Weighting:
    """What decides the weights."""

    gamma: float
    """Exponent of the class balance at the beginning: 0 none, 1 all classes alike."""
    anneal: float | None
    """Share of the run over which gamma falls to 0; None: it stays."""
    beta: float
    """Strength of the preference for sure images; 0 none."""
    source_weight: Floats
    """[sources]"""


class Sampler:
    """The weighted stream over a pool; for one thread at a time."""

    def __init__(self, pool: Pool, weighting: Weighting, *, num_rows: int, seed: int) -> None:
        """`num_rows`: length of the whole run in images, for the fall of gamma."""
        self.pool = pool
        self.weighting = weighting
        self._num_rows = num_rows
        self._seed = seed
        self._scales: dict[float, tuple[Floats, float]] = {}
        self._gammas: dict[int, Floats] = {}
        self._epochs: dict[int, Ints] = {}

    @cached_property
    def num_images(self) -> int:
        """Images of the pool that can come at all, N: those of sources with a weight."""
        return int(self.pool.count[self.weighting.source_weight > 0].sum())

    @cached_property
    def _confidence(self) -> Floats:
        """[sources, C] mean of exp(beta (r - 1)) over the rows of a group; 1 without beta."""
        count = self.pool.count
        if not self.weighting.beta:
            return np.ones(count.shape)
        total = np.zeros(count.size)
        for place in range(len(self.pool.by_tar)):
            rows = self.pool.rows(place)
            np.add.at(total, rows.group, self._factor(rows))
        return total.reshape(count.shape) / np.maximum(count, 1)

    @cached_property
    def class_share(self) -> Floats:
        """[C] q: the share of the pool that is called each class, sources counting as weighted."""
        weighted = self.weighting.source_weight @ self.pool.count
        return np.asarray(weighted / weighted.sum(), np.float64)

    def share(self, gamma: float) -> Floats:
        """[sources, C] what is expected of each group, as shares of the stream."""
        every = np.arange(self.pool.count.size)
        weight = self._group_weights(every, gamma) * self._confidence.reshape(-1)
        expected = self.pool.count * weight.reshape(self.pool.count.shape)
        return np.asarray(expected / expected.sum(), np.float64)

    def _group_weights(self, group: Ints, gamma: float) -> Floats:
        """[n] weights of the surest images of some groups, in mean weights of the pool."""
        balance, mean = self._scale(gamma)
        source, number = np.divmod(group, len(balance))
        weight = self.weighting.source_weight[source] * balance[number]
        return np.asarray(np.minimum(weight / mean, LARGEST), np.float64)

    def _scale(self, gamma: float) -> tuple[Floats, float]:
        """Factors of the classes [C], and kappa, the mean weight once it is cut."""
        if gamma not in self._scales:
            balance = (self.class_share + 1 / self.num_images) ** -gamma
            weight = self.weighting.source_weight[:, None] * balance
            rows = self.pool.count * self._confidence / self.num_images
            mean = float((rows * weight).sum())
            for _ in range(_MOST_CUTS):
                # What is cut lowers the mean, and with it the cut.
                cut = float((rows * np.minimum(weight, LARGEST * mean)).sum())
                if cut >= mean * (1 - _CUT_PRECISION):
                    break
                mean = cut
            self._scales[gamma] = balance, mean
        return self._scales[gamma]

    def gamma_at(self, position: float) -> float:
        """Gamma where `position` images of the stream are done, in 256 steps."""
        anneal, gamma = self.weighting.anneal, self.weighting.gamma
        if anneal is None or not gamma:
            return gamma
        left = max(0.0, 1 - position / (anneal * self._num_rows))
        return gamma * round(left * _GAMMA_STEPS) / _GAMMA_STEPS

    def gammas(self, epoch: int) -> Floats:
        """[tars] gamma of each tar in an epoch: that of the position where it is expected."""
        if epoch not in self._gammas:
            counts = np.array([int(number.sum()) for _, number in self.pool.by_tar], np.int64)
            full = np.flatnonzero(counts)
            order = full[tar_order(len(full), seed=self._seed, epoch=epoch)]
            before = np.cumsum(counts[order]) - counts[order]
            start = self.num_images * (epoch + before / counts.sum())
            gammas = np.zeros(len(counts))
            gammas[order] = [self.gamma_at(position) for position in start.tolist()]
            self._gammas[epoch] = gammas
            _drop_first(self._gammas)
        return self._gammas[epoch]

    def counts(self, epoch: int) -> Ints:
        """[tars] images of each tar in an epoch, repeats counted; 0 for tars that are not read."""
        if epoch not in self._epochs:
            gammas = self.gammas(epoch)
            self._epochs[epoch] = np.array(
                [int(self._repeats(place, epoch, g).sum()) for place, g in enumerate(gammas)],
                np.int64,
            )
            _drop_first(self._epochs)
        return self._epochs[epoch]

    def repeats(self, place: int, epoch: int) -> tuple[Ints, NDArray[np.float32]]:
        """How often each labelled row of a tar comes in an epoch, and mean weight over its weight.

        Returns:
            [n] times, and [n] factors that undo the weighting in the loss.
        """
        gamma = float(self.gammas(epoch)[place])
        times = self._repeats(place, epoch, gamma)
        weight = self._weights(self.pool.rows(place), gamma)
        return times, (1 / np.maximum(weight, 1e-12)).astype(np.float32)

    def _repeats(self, place: int, epoch: int, gamma: float) -> Ints:
        group, number = self.pool.by_tar[place]
        relative = self._group_weights(group, gamma) * self._confidence.reshape(-1)[group]
        if float((relative * number).sum()) < LEAST_YIELD * int(number.sum()):
            return np.zeros(int(number.sum()), np.int64)
        rows = self.pool.rows(place)
        weight = self._weights(rows, gamma)
        whole = np.floor(weight)
        drawn = uniform(rows.key_hash, seed=self._seed, epoch=epoch) < weight - whole
        return whole.astype(np.int64) + drawn

    def _weights(self, rows: PoolRows, gamma: float) -> Floats:
        """[n] in mean weights of the pool: how often each is expected in an epoch."""
        weight = self._group_weights(rows.group, gamma)
        return weight * self._factor(rows) if self.weighting.beta else weight

    def _factor(self, rows: PoolRows) -> Floats:
        assert rows.score is not None
        rank = self.pool.ranks.of(rows.score.astype(np.float64))
        factor: Floats = np.exp(self.weighting.beta * (rank - 1))
        return factor


def _drop_first(kept: dict[int, Any]) -> None:
    while len(kept) > _KEPT_EPOCHS:
        del kept[next(iter(kept))]


def uniform(key_hash: NDArray[np.uint64], *, seed: int, epoch: int) -> Floats:
    """[n] numbers in [0, 1), a pure function of seed, epoch and key.

    A counter hash: the finaliser of SplitMix64 (Steele, Lea and Flood 2014), twice.
    """
    salt = _mixed(np.array([seed ^ _DRAW_KEY], np.uint64)) + np.uint64(epoch)
    words = _mixed(key_hash ^ _mixed(salt))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit words that leaves no pattern."""
    x = words + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
