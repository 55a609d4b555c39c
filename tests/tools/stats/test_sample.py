"""Samples, extremes, copies and sums: the same whatever the order and however it was split."""

from unittest.mock import ANY

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softlabel.tools.stats.duplicates import Duplicates
from softlabel.tools.stats.sample import NUM_PICKS, Extremes, Sample, extremes
from softlabel.tools.stats.sums import Sums
from softlabel.tools.stats.values import tar_values

ints = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def sample_of(capacity: int, rows: list[tuple[int, int, int]]) -> Sample:
    sample = Sample(capacity, num_views=1, num_measures=1)
    if rows:
        key, tar, row = np.array(rows).T
        values = (1000.0 * tar + row).reshape(-1, 1, 1)
        sample.add(key.astype(np.uint64), np.stack([tar, row]), values)
    return sample


@given(ints, st.integers(1, 8), st.floats(0, 1), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_a_sample_is_the_smallest_keys_in_whatever_order_and_split(keys, capacity, part, seed):
    rows = [(key, i % 3, i) for i, key in enumerate(keys)]
    cut = round(part * len(rows))
    wanted = sorted(rows)[:capacity]
    shuffled = [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]
    merged = sample_of(capacity, shuffled[:cut])
    merged.merge(sample_of(10**6, shuffled[cut:]))
    found = sorted(merged.values[:, 0])
    assert found == sorted(1000.0 * tar + row for _, tar, row in wanted)
    assert merged.num_seen == len(rows)
    assert merged.is_whole == (len(rows) <= capacity)


@given(ints, st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=40)
def test_a_sample_that_shrinks_late_is_one_that_was_small_from_the_start(keys, large, small):
    rows = [(key, 0, i) for i, key in enumerate(keys)]
    late = sample_of(large, rows)
    late.shrink(small)
    early = sample_of(min(large, small), rows)
    assert sorted(late.values[:, 0]) == sorted(early.values[:, 0])


def extremes_of(rows: list[tuple[int, int]], tar: int = 0, start: int = 0) -> Extremes:
    p1, image = np.array(rows, np.float64).reshape(-1, 2).T
    row = start + np.arange(len(rows))
    return extremes(
        p1 / 40,
        key_hash=row.astype(np.uint64),
        tar=tar,
        row=row,
        first_class=np.zeros(len(rows), np.int64),
        image_hash=image.astype(np.uint64),
    )


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(0, 60))
@settings(max_examples=60)
def test_extremes_show_each_image_once_and_do_not_depend_on_the_split(p1, cut):
    rows = [(p, p % 13) for p in p1]  # copies have one p1, as the same bytes have
    rows = [(image, image) for _, image in rows]
    parts = extremes_of(rows[:cut]).merged(extremes_of(rows[cut:], start=cut))
    assert parts == extremes_of(rows)
    different = sorted({image for _, image in rows})
    assert [pick.image_hash for pick in parts.least] == different[:NUM_PICKS]
    assert [pick.image_hash for pick in parts.most] == different[::-1][:NUM_PICKS]


def count_slowly(images: list[tuple[int, int]], num_sources: int) -> tuple[list[int], list[int]]:
    within, shared = [], []
    for s in range(num_sources):
        own = [image for image, source in images if source == s]
        others = {image for image, source in images if source != s}
        within.append(len(own) - len(set(own)))
        shared.append(sum(image in others for image in own))
    return within, shared


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=60), st.integers(1, 9))
@settings(max_examples=60)
def test_copies_are_counted_exactly_in_any_number_of_parts(images, parts):
    duplicates = Duplicates(most_hashes=1000)
    for part in range(parts):
        own = images[part::parts]
        duplicates.add(
            np.array([image for image, _ in own], np.uint64),
            np.array([source for _, source in own], np.int32),
        )
    within, shared = count_slowly(images, 3)
    assert duplicates.factor == 1
    assert duplicates.within(3).tolist() == within
    assert duplicates.shared(3).tolist() == shared
    assert duplicates.total() == len(images) - len({image for image, _ in images})


def test_copies_of_more_images_than_fit_are_estimated_from_a_part_of_the_hashes():
    rng = np.random.default_rng(0)
    different = rng.integers(0, 2**64, 40_000, np.uint64)
    images = np.concatenate([different, different[:20_000]])  # 20,000 copies
    source = np.zeros(len(images), np.int32)
    source[40_000:50_000] = 1
    found = []
    for order in (np.arange(len(images)), rng.permutation(len(images))):
        duplicates = Duplicates(most_hashes=10_000)
        for part in np.array_split(order, 7):
            duplicates.add(images[part], source[part])
        found.append((duplicates.factor, *duplicates.within(2), *duplicates.shared(2)))
        assert duplicates.total() == pytest.approx(20_000, rel=0.05)
    assert found[0] == found[1]
    assert found[0][0] == 8
    assert found[0][1:3] == (pytest.approx(10_000, rel=0.1), 0)
    assert found[0][3:5] == (pytest.approx(10_000, rel=0.1), pytest.approx(10_000, rel=0.1))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_sums_of_parts_merged_are_those_of_the_whole(make_rows, make_manifest, dense, seed, code):
    m = make_manifest(views=2)
    rows = make_rows(m, dense(len(code), seed=seed, views=2))
    rows["status"][::5] = 3
    values, parts = tar_values(rows, m), np.array(code)
    whole = Sums.of_part(m, 0, values, np.ones(len(code), np.bool_))
    merged = Sums(m, capacity=1000)
    for part in sorted(set(code)):
        merged.merge(Sums.of_part(m, 0, values, parts == part))
    merged.num_tars = 1
    one, other = whole._figures("x"), merged._figures("x")
    distributions = [figures.pop("distributions") for figures in (one, other)]
    assert other == {**one, "wanted_top_k": ANY}
    assert distributions[0].keys() == distributions[1].keys()
    for measure, found in distributions[0].items():
        again = distributions[1][measure]
        assert again.mean == pytest.approx(found.mean, rel=1e-12, abs=1e-15)
        assert again.quantiles == pytest.approx(found.quantiles, rel=1e-12)
    assert merged.extremes == whole.extremes
    for t, labels in whole.labels.items():
        assert merged.labels[t].prefix_sum == pytest.approx(labels.prefix_sum, rel=1e-12)
        assert merged.labels[t].last_sum == pytest.approx(labels.last_sum, rel=1e-12)
        assert merged.labels[t].mean_entropy == pytest.approx(labels.mean_entropy, rel=1e-12)
