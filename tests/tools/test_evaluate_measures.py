"""Slopes, worst classes and differences, and their resamples, against plain recomputation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress

from softlabel.tools.evaluate.bootstrap import Mean, estimate, figure_of, resample_counts
from softlabel.tools.evaluate.measures import CalibrationError, Slope, WorstClasses
from softlabel.tools.evaluate.metrics import equal_mass_bin_of

POINTS = st.lists(
    st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.booleans()), min_size=4, max_size=30
)
LABELLED = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40)


def drawn(counts):
    """The images of one resample, one after the other, as often as they were drawn."""
    return np.repeat(np.arange(len(counts)), counts.astype(int))


def first_resamples(num_images, count=5):
    return next(resample_counts(num_images, seed=1))[:count]


@settings(deadline=None)
@given(POINTS)
def test_a_slope_is_that_of_least_squares_over_the_images_that_count(points):
    x, y, where = (np.array(column) for column in zip(*points, strict=True))
    if where.sum() < 2 or np.ptp(x[where]) < 1e-3:
        return
    found = Slope(x, y, where).over(np.ones((1, len(x))))[0]
    assert found == pytest.approx(linregress(x[where], y[where]).slope, rel=1e-6, abs=1e-6)


def test_a_resampled_slope_is_that_of_the_images_drawn():
    rng = np.random.default_rng(0)
    x = rng.normal(1000, 2, 60)
    y = 1.5 * x + rng.normal(0, 1, 60)
    where = rng.random(60) < 0.8
    counts = first_resamples(60)
    found = Slope(x, y, where).over(counts)
    for value, row in zip(found, counts, strict=True):
        images = drawn(row * where)
        assert value == pytest.approx(linregress(x[images], y[images]).slope, rel=1e-9)


def test_points_of_one_x_have_no_slope_and_it_is_left_out():
    x = np.full(9, 3.7)
    figures = estimate({"slope": Slope(x, np.arange(9.0), np.ones(9, bool))})
    assert figures == {}


def test_an_interval_of_a_slope_is_as_wide_as_its_standard_error_says():
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, 2000)
    y = 0.8 * x + rng.normal(0, 0.5, 2000)
    figure = estimate({"slope": Slope(x, y, np.ones(2000, bool))})["slope"]
    half_width = 1.96 * linregress(x, y).stderr
    assert (figure.high - figure.low) / 2 == pytest.approx(half_width, rel=0.15)
    assert figure.low < 0.8 < figure.high


@settings(max_examples=50, deadline=None)
@given(LABELLED, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_the_worst_classes_are_those_of_lowest_accuracy_whatever_is_drawn(labelled, share):
    target, correct = (np.array(column) for column in zip(*labelled, strict=True))
    where = np.arange(len(target)) % 4 != 1
    measure = WorstClasses(target, correct, where, share=share)
    counts = np.concatenate([np.ones((1, len(target))), first_resamples(len(target))])
    for value, row in zip(measure.over(counts), counts, strict=True):
        images = drawn(row * where)
        means = sorted(float(np.mean(correct[images][target[images] == c]))
                       for c in set(target[images].tolist()))  # fmt: skip
        wanted = max(1, math.ceil(share * len(means)))
        expected = sum(means[:wanted]) / wanted if means else math.nan
        assert value == pytest.approx(expected, nan_ok=True)


def test_the_interval_of_a_worst_class_reaches_up_to_what_all_classes_truly_have():
    """The lowest of twenty noisy accuracies lies below 0.7, and its resamples still lower."""
    rng = np.random.default_rng(2)
    target = np.repeat(np.arange(20), 50)
    correct = rng.random(1000) < 0.7
    figure = estimate({"w": WorstClasses(target, correct, np.ones(1000, bool))})["w"]
    assert figure.low <= figure.value < 0.7 < figure.high <= 1


def test_the_adaptive_error_is_the_mean_gap_over_bins_of_equal_mass():
    rng = np.random.default_rng(4)
    confidence, correct = rng.random(100) ** 0.2, rng.random(100) < 0.8
    where = rng.random(100) < 0.9
    measure = CalibrationError(confidence, correct, where, equal_mass=True)
    sure, right = confidence[where], correct[where]
    bins = equal_mass_bin_of(sure)
    gaps = [abs((sure - right)[bins == b].sum()) for b in range(15)]
    expected = sum(gaps) / where.sum()
    assert estimate({"e": measure})["e"].value == pytest.approx(expected, rel=1e-12)


def test_a_difference_is_resampled_with_both_models_on_the_same_images():
    """The models differ by a constant: their intervals are wide, that of the difference is none."""
    values = np.random.default_rng(5).random(80)
    every = np.ones(80, bool)
    measures = {"a": Mean(values, every), "b": Mean(values - 0.25, every)}
    figures = estimate(measures, differences={"a - b": ("a", "b"), "no": ("a", "c")})
    found = figures["a - b"]
    assert [found.low, found.value, found.high] == pytest.approx([0.25] * 3)
    assert figures["a"].high - figures["a"].low > 0.1
    assert "no" not in figures
    assert found.n == 80


def test_a_mirrored_interval_holds_its_value_and_stays_within_its_span():
    above = figure_of(0.1, np.linspace(0.2, 0.4, 99), n=5, mirrored=True, span=(0.0, 1.0))
    assert (above.low, above.high) == (0.0, 0.1)
    below = figure_of(0.9, np.linspace(0.5, 0.7, 99), n=5, mirrored=True, span=(0.0, 1.0))
    assert (below.low, below.high) == (0.9, 1.0)


def test_resamples_are_as_many_as_asked_and_draw_each_time_as_many_images_as_there_are():
    counts = np.concatenate(list(resample_counts(7, seed=2, resamples=30)))
    assert counts.shape == (30, 7)
    assert (counts.sum(1) == 7).all()
