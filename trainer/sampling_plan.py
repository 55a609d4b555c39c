"""From flags to a weighted stream."""

from collections.abc import Mapping, Sequence

import numpy as np

from softlabel.shards.errors import UsageError
from softlabel.shards.sources import parse_source_by, refuse_unmatched
from softlabel.shards.statistics import effective_number
from softlabel.shards.store import Store
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.pool import Pool
from softlabel.trainer.sampling import Floats, Sampler, Weighting

BY_CLASSES = "classes"
SHOWN_SOURCES = 20
_LARGEST_WEIGHT = 1e6


def make_sampler(
    config: TrainConfig, store: Store, tars: Sequence[int], urls: Mapping[int, str]
) -> Sampler | None:
    """The weighted stream that the flags ask for; None if every image comes once an epoch.

    Raises:
        UsageError: an unknown source, a pattern that matches nothing, weights that leave nothing.
        StoreError: the store is damaged.
        TarError: a tar that had to be read for its sources can't be.
    """
    if not config.weighted:
        return None
    source_by = parse_source_by(config.source_by)
    refuse_unmatched(source_by, [store.tars[tar] for tar in tars])
    score = config.confidence_score if config.confidence_beta else None
    pool = Pool(store, tars, urls, source_by=source_by, score=score)
    weighting = Weighting(
        gamma=config.balance_gamma if config.sample == "balanced" else 0.0,
        anneal=config.balance_anneal,
        beta=config.confidence_beta,
        source_weight=source_weights(config.source_weight, pool),
    )
    num_images = int(pool.count[weighting.source_weight > 0].sum())
    if not num_images:
        raise UsageError("--source-weight: leaves no source with an image")
    return Sampler(pool, weighting, num_rows=config.num_rows(num_images), seed=config.seed)


def source_weights(given: Sequence[str], pool: Pool) -> Floats:
    """[sources] weights of `NAME=W` (others 1), or the share of classes that a source covers.

    Raises:
        UsageError: no such source, no number.
    """
    C = pool.count.shape[1]
    weight = np.ones(len(pool.sources))
    if BY_CLASSES in given:
        if len(given) > 1:
            raise UsageError(f"--source-weight: wanted {BY_CLASSES} or NAME=W, found both")
        return np.array([effective_number(count) / C for count in pool.count])
    named = [part.rpartition("=")[0] for part in given]
    if twice := sorted({name for name in named if named.count(name) > 1}):
        raise UsageError(f"--source-weight: each source once, found twice: {', '.join(twice)}")
    for part in given:
        name, equals, number = part.rpartition("=")
        if name not in pool.sources or not equals:
            known = ", ".join(sorted(pool.sources)[:SHOWN_SOURCES])
            raise UsageError(
                f"--source-weight {part}: wanted {BY_CLASSES} or NAME=W with a source, found by "
                f"--source-by: {known}"
            )
        weight[pool.sources.index(name)] = _number(number, part)
    return weight


def _number(text: str, part: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _LARGEST_WEIGHT:
        raise UsageError(
            f"--source-weight {part}: wanted a number from 0 to {_LARGEST_WEIGHT:,.0f} after the "
            "last ="
        )
    return value
