"""Weighted streams: the weights against their formula, the draws against the weights."""

import math
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softlabel.shards.sources import parse_source_by
from softlabel.trainer.order import Order
from softlabel.trainer.pool import Pool
from softlabel.trainer.sampling import LARGEST, Sampler, Weighting, uniform

C = 10


@pytest.fixture(scope="module")
def mixed(make_collection, tmp_path_factory):
    """Six tars of 40 images, two of each without a label."""
    folder = tmp_path_factory.mktemp("mixed")
    return make_collection(folder, 6, 40, bad={7: 3, 30: 2})


def pool_of(collection, *, score=None, by=r"path:t0([0-5])\.tar"):
    store = collection.store
    tars = sorted(store.commits())
    urls = {tar: str(collection.tars[tar]) for tar in tars}
    return Pool(store, tars, urls, source_by=parse_source_by(by), score=score)


def sampler_of(collection, *, score=None, num_rows=2000, seed=3, by="name", **weighting):
    pool = pool_of(collection, score=score, by=by)
    options = {"gamma": 1.0, "anneal": None, "beta": 0.0, **weighting}
    options.setdefault("source_weight", np.ones(len(pool.sources)))
    options["source_weight"] = np.asarray(options["source_weight"], np.float64)
    return Sampler(pool, Weighting(**options), num_rows=num_rows, seed=seed)


def rows_of(collection):
    """(tar, source, class) of every ok row, read without Pool."""
    for tar in sorted(collection.store.commits()):
        arrays = collection.store.read(tar)
        for i in np.flatnonzero(arrays["status"] == 1):
            yield tar, int(arrays["topk_class"][i, 0, 0])


def weights_by_formula(collection, source_of_tar, v, gamma):
    """w_i of the docstring, row by row in plain Python, in mean weights."""
    rows = list(rows_of(collection))
    alive = [(t, c) for t, c in rows if v[source_of_tar[t]] > 0]
    total = sum(v[source_of_tar[t]] for t, _ in rows)
    q = [sum(v[source_of_tar[t]] for t, c in rows if c == k) / total for k in range(C)]
    w = [v[source_of_tar[t]] * (q[c] + 1 / len(alive)) ** -gamma for t, c in rows]
    # The mean after the cut, by bisection: what is cut at 20 times it has it as its mean.
    low, high = 0.0, sum(w) / len(alive)
    for _ in range(200):
        kappa = (low + high) / 2
        if sum(min(x, LARGEST * kappa) for x in w) / len(alive) >= kappa:
            low = kappa
        else:
            high = kappa
    return np.array([min(x / high, LARGEST) for x in w])


def every_row(sampler, epoch):
    parts = [sampler.repeats(place, epoch) for place in range(6)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("v", [(1, 1, 1, 1, 1, 1), (1, 0, 2, 0.5, 0.01, 1)], ids=["same", "own"])
def test_weights_are_those_of_the_formula(mixed, gamma, v):
    sampler = sampler_of(mixed, gamma=gamma, source_weight=v, by=r"path:t0(\d)")
    wanted = weights_by_formula(mixed, dict(enumerate(range(6))), v, gamma)
    times, factor = every_row(sampler, 0)
    alive = wanted > 0
    assert np.allclose(1 / factor[alive], wanted[alive], rtol=1e-6)
    read = np.concatenate([np.full(len(t), t.sum() > 0) for t in np.split(times, 6)])
    assert (times[read] >= np.floor(wanted[read])).all()
    assert (times[read] <= np.floor(wanted[read]) + 1).all()


def test_a_row_comes_as_often_as_its_weight_says_over_many_epochs(mixed):
    sampler = sampler_of(mixed, gamma=1.0)
    wanted = weights_by_formula(mixed, dict.fromkeys(range(6), 0), (1,), 1.0)
    epochs = 400
    mean = sum(every_row(sampler, epoch)[0] for epoch in range(epochs)) / epochs
    part = wanted - np.floor(wanted)
    deviation = np.sqrt(np.maximum(part * (1 - part), 1e-9) / epochs)
    assert (np.abs(mean - wanted) < 5 * deviation + 1e-9).all()
    assert abs(mean.sum() / len(wanted) - 1) < 0.02


def test_balance_brings_the_classes_of_the_stream_together(mixed):
    uniform_stream, balanced = sampler_of(mixed, gamma=0.0), sampler_of(mixed, gamma=1.0)
    spread = [
        sampler.share(sampler.weighting.gamma).sum(0) for sampler in (uniform_stream, balanced)
    ]
    seen = spread[0] > 0
    assert spread[1][seen].std() < 0.5 * spread[0][seen].std()
    assert spread[1].sum() == pytest.approx(1)


def test_without_weights_every_image_comes_once(mixed):
    sampler = sampler_of(mixed, gamma=0.0)
    times, factor = every_row(sampler, 5)
    assert (times == 1).all()
    assert (factor == 1).all()
    assert sampler.num_images == len(times)


def test_a_source_without_weight_is_left_out_and_the_others_come_once(mixed):
    sampler = sampler_of(mixed, gamma=0.0, source_weight=(1, 1, 0, 1, 0, 1), by=r"path:t0(\d)")
    assert (sampler.counts(0) == 0).tolist() == [False, False, True, False, True, False]
    assert sampler.counts(0).sum() == sampler.num_images
    assert sampler.counts(0).tolist() == sampler.counts(9).tolist()


def test_a_tar_that_would_yield_less_than_one_percent_is_not_read(mixed):
    just = sampler_of(mixed, gamma=0.0, source_weight=(1, 1, 1, 1, 1, 0.012), by=r"path:t0(\d)")
    less = sampler_of(mixed, gamma=0.0, source_weight=(1, 1, 1, 1, 1, 0.0075), by=r"path:t0(\d)")
    assert sum(just.counts(epoch)[5] for epoch in range(300)) > 0
    assert sum(less.counts(epoch)[5] for epoch in range(300)) == 0


def test_no_image_comes_more_than_20_times_an_epoch_and_an_epoch_keeps_its_length(mixed):
    sampler = sampler_of(mixed, gamma=0.0, source_weight=(1, 1, 1, 1, 1, 1), by=r"path:t0(\d)")
    count = np.zeros((1, 400), np.int64)
    count[0, 0] = 100_000 - 399
    count[0, 1:] = 1
    sampler.pool.count, sampler.weighting = (
        count,
        Weighting(gamma=1.0, anneal=None, beta=0.0, source_weight=np.ones(1)),
    )
    weight = sampler._group_weights(np.arange(400), 1.0)
    assert weight.max() == LARGEST
    assert (weight * count[0]).sum() / count.sum() == pytest.approx(1, abs=1e-6)


def test_gamma_falls_to_nothing_over_its_share_of_the_run(mixed):
    sampler = sampler_of(mixed, gamma=2.0, anneal=0.5, num_rows=1000)
    assert sampler.gamma_at(0) == 2.0
    assert sampler.gamma_at(250) == pytest.approx(1.0, abs=2 / 256)
    assert sampler.gamma_at(500) == sampler.gamma_at(999) == 0.0
    found = [sampler.gamma_at(p) for p in range(0, 1000, 10)]
    assert found == sorted(found, reverse=True)
    assert sampler.gammas(0).max() == 2.0
    later = sampler.gammas(1)
    assert later.max() < sampler.gammas(0).min()
    assert every_row(sampler, 4)[0].tolist() == [1] * sampler.num_images


def test_confidence_prefers_the_surer_half(mixed):
    sampler = sampler_of(mixed, gamma=0.0, beta=3.0, score="p1")
    times = sum(every_row(sampler, epoch)[0] for epoch in range(100))
    first = np.concatenate(
        [
            np.exp(a["topk_logit"][a["status"] == 1][:, 0].astype(float)).sum(-1)
            + np.exp(a["tail_lse"][a["status"] == 1][:, 0, 0].astype(float))
            for a in map(mixed.store.read, range(6))
        ]
    )
    order = np.argsort(-first)  # 1 / p1
    half = len(order) // 2
    assert times[order[half:]].sum() > 2 * times[order[:half]].sum()
    assert sampler.counts(0).sum() == pytest.approx(sampler.num_images, rel=0.15)


def test_the_correction_undoes_the_weights_on_average(mixed):
    sampler = sampler_of(mixed, gamma=1.0)
    epochs = [every_row(sampler, epoch) for epoch in range(300)]
    mean = sum(times * factor for times, factor in epochs) / len(epochs)
    assert np.abs(mean - 1).max() < 0.35
    assert mean.mean() == pytest.approx(1, abs=0.01)


def test_draws_depend_on_seed_epoch_and_key_alone(mixed):
    first, second = sampler_of(mixed), sampler_of(mixed)
    second.counts(7)
    assert first.counts(3).tolist() == second.counts(3).tolist()
    assert [first.repeats(2, 1)[0].tolist()] == [second.repeats(2, 1)[0].tolist()]
    other = sampler_of(mixed, seed=4)
    assert first.repeats(2, 1)[0].tolist() != other.repeats(2, 1)[0].tolist()
    assert first.repeats(2, 1)[0].tolist() != first.repeats(2, 2)[0].tolist()


def test_the_counter_hash_is_the_same_for_ever():
    found = uniform(np.array([0, 1, 2**63, 2**64 - 1], np.uint64), seed=2026, epoch=5)
    assert found.tolist() == GOLDEN


GOLDEN = [0.6181037431253009, 0.6092506339325235, 0.4336628290087746, 0.5770559094614438]


def splitmix64(state):
    """The published generator's next number, in plain integers."""
    mask = 2**64 - 1
    x = (state + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


@given(
    keys=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9),
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10**6),
)
def test_the_counter_hash_is_splitmix64_in_integers(keys, seed, epoch):
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # as published
    salt = splitmix64((splitmix64(seed ^ 0x64726177) + epoch) & (2**64 - 1))
    wanted = [(splitmix64(key ^ salt) >> 11) * 2.0**-53 for key in keys]
    assert uniform(np.array(keys, np.uint64), seed=seed, epoch=epoch).tolist() == wanted


def test_the_draws_are_even_over_keys_and_independent_over_epochs():
    keys = np.arange(20_000, dtype=np.uint64)
    one, two = uniform(keys, seed=1, epoch=0), uniform(keys, seed=1, epoch=1)
    counts = np.histogram(one, 50, (0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 95  # chi-square, 49 degrees, p < 1e-4
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    counts=st.lists(st.integers(0, 200), min_size=1, max_size=30).filter(any),
    seed=st.integers(0, 2**63 - 1),
)
def test_a_sampled_stream_shows_what_was_drawn_and_seeks_as_it_iterates(data, counts, seed):
    """An epoch may show nothing of a tar, or nothing at all."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 3, (50, len(counts))) * np.array(counts)
    table[rng.random(50) < 0.2] = 0
    table[:, np.flatnonzero(counts)[0]] += rng.integers(0, 2, 50)
    total = int(table.sum())
    if not total:
        return

    def stream(position):
        order = Order(counts, seed=seed, drawn=lambda epoch: table[epoch % 50])
        for buffer in order.buffers(position):
            tar, place = buffer.images()
            skip = max(0, position - buffer.start)
            yield from zip(
                [buffer.epoch] * (len(tar) - skip), tar[skip:], place[skip:], strict=True
            )

    length = min(total, 400)
    first = list(islice(stream(0), length))
    position = data.draw(st.integers(0, length - 1))
    assert list(islice(stream(position), length - position)) == first[position:]
    for epoch in {e for e, _, _ in first[:-1]} - {first[-1][0]}:
        shown = sorted((int(t), int(p)) for e, t, p in first if e == epoch)
        wanted = [(t, p) for t, n in enumerate(table[epoch % 50]) for p in range(n)]
        assert shown == wanted
    assert math.isclose(len(first), length)
