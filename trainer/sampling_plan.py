"""From flags to a weighted stream, and what it is going to do, in lines to read before training."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from softlabel.shards.commits import Commit
from softlabel.shards.errors import UsageError
from softlabel.shards.sources import parse_source_by, refuse_unmatched
from softlabel.shards.statistics import effective_number
from softlabel.shards.store import Store
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.pool import Pool
from softlabel.trainer.sampling import Floats, Sampler, Weighting

BY_CLASSES = "classes"
_SHOWN_SOURCES = 20
_LARGEST_WEIGHT = 1e6
_CONFIDENCE_WARNING = (
    "warning: --confidence-beta prefers images of which the teacher is sure, which is no sign that "
    "they are of use: measured, it slowed students of digits down and helped those of MNIST "
    "(docs/results.md); try without it first"
)


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
            known = ", ".join(sorted(pool.sources)[:_SHOWN_SOURCES])
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


def sampling_notes(
    config: TrainConfig, sampler: Sampler, commits: Sequence[Commit]
) -> Iterator[str]:
    """What the stream is going to be, before the first step.

    Args:
        config: of the run.
        sampler: its stream.
        commits: of its tars, in order.
    """
    pool, weighting = sampler.pool, sampler.weighting
    last = sampler.gamma_at(float(config.num_rows(sampler.num_images)))
    yield _headline(config, sampler, last)
    first_share, last_share = sampler.share(weighting.gamma), sampler.share(last)
    total = pool.count.sum()
    order = np.argsort(-pool.count.sum(1), kind="stable")
    for number in order[:_SHOWN_SOURCES]:
        count = pool.count[number]
        fall = "" if last == weighting.gamma else f", {last_share[number].sum():.1%} at the end"
        yield (
            f"sampling:   {pool.sources[number]}: {count.sum():,} images, "
            f"{count.sum() / total:.1%} of the pool, {effective_number(count):.1f} effective "
            f"classes; {first_share[number].sum():.1%} of the stream{fall}"
        )
    if len(order) > _SHOWN_SOURCES:
        yield f"sampling:   and {len(order) - _SHOWN_SOURCES} smaller sources"
    yield _reading(sampler, commits)
    if config.confidence_beta:
        yield _CONFIDENCE_WARNING


def _headline(config: TrainConfig, sampler: Sampler, last: float) -> str:
    pool, weighting = sampler.pool, sampler.weighting
    num_steps = config.num_steps(sampler.num_images)
    parts = []
    if weighting.gamma:
        fall = ""
        if last != weighting.gamma:
            fall = f" falling to {last:g} over the first {weighting.anneal:.0%} of {num_steps:,}"
            fall += " steps"
        parts.append(f"class balance, gamma {weighting.gamma:g}{fall}")
    if weighting.beta:
        parts.append(f"confidence by {config.confidence_score}, beta {weighting.beta:g}")
    if config.source_weight:
        parts.append(f"source weights {' '.join(config.source_weight)}")
    if config.importance_correct:
        parts.append("undone in the loss (--importance-correct)")
    before = effective_number(pool.count.sum(0))
    after = effective_number(sampler.share(weighting.gamma).sum(0))
    return (
        f"sampling: {', '.join(parts)}; {sampler.num_images:,} images of {len(pool.sources):,} "
        f"source(s), {before:.1f} effective classes of {pool.count.shape[1]}, {after:.1f} as "
        "they are drawn at first"
    )


def _reading(sampler: Sampler, commits: Sequence[Commit]) -> str:
    """What the first epoch reads; counted, as training counts it."""
    counts = sampler.counts(0)
    size = np.array([commit.tar_size for commit in commits], np.int64)
    unread = counts == 0
    most = 0
    never = 0
    for place in np.flatnonzero(~unread).tolist():
        times, _ = sampler.repeats(place, 0)
        most = max(most, int(times.max()))
        never += int((times == 0).sum())
    return (
        f"sampling: the first epoch shows {int(counts.sum()):,} images, one of them up to {most} "
        f"times, and leaves out {never:,} of the tars it reads; {int(unread.sum()):,} of "
        f"{len(counts):,} tars ({_megabytes(int(size[unread].sum()))} of "
        f"{_megabytes(int(size.sum()))}) yield nothing and are not read"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
