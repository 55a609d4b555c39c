"""What a weighted stream is going to be, in lines to read before training."""

from collections.abc import Iterator, Sequence

import numpy as np

from softlabel.shards.commits import Commit
from softlabel.shards.statistics import effective_number
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.sampling import Sampler
from softlabel.trainer.sampling_plan import SHOWN_SOURCES

_CONFIDENCE_WARNING = (
    "warning: --confidence-beta prefers images of which the teacher is sure, which is no sign that "
    "they are of use: measured, it slowed students of digits down and helped those of MNIST "
    "(docs/results.md); try without it first"
)


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
    for number in order[:SHOWN_SOURCES]:
        count = pool.count[number]
        fall = "" if last == weighting.gamma else f", {last_share[number].sum():.1%} at the end"
        yield (
            f"sampling:   {pool.sources[number]}: {count.sum():,} images, "
            f"{count.sum() / total:.1%} of the pool, {effective_number(count):.1f} effective "
            f"classes; {first_share[number].sum():.1%} of the stream{fall}"
        )
    if len(order) > SHOWN_SOURCES:
        yield f"sampling:   and {len(order) - SHOWN_SOURCES} smaller sources"
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
