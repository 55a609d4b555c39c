"""Figures of an evaluation against scalar derivations, and what must hold of any of them."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst
from sklearn.metrics import brier_score_loss, log_loss

from softlabel.tools.evaluate.bootstrap import Mean, estimate
from softlabel.tools.evaluate.measures import CalibrationError
from softlabel.tools.evaluate.metrics import (
    NUM_BINS,
    by_class,
    equal_mass_bin_of,
    first_classes,
    hits,
    log_odds,
    log_softmax,
    overlap,
    own_label,
    predictive_kl,
    reliability,
    total_variation,
)

LOGITS = nst.arrays(np.float64, (3, 7), elements=st.floats(-40, 40))


def softmax(row):
    peak = max(row)
    weights = [math.exp(z - peak) for z in row]
    return [w / sum(weights) for w in weights]


def stored(logits, k):
    """What a store holds of these teacher logits: head, tail, classes."""
    probability = np.array([softmax(row) for row in logits.tolist()])
    order = np.argsort(-probability, axis=1, kind="stable")
    head = np.take_along_axis(probability, order[:, :k], 1)
    left_out = np.take_along_axis(probability, order[:, k:], 1).sum(1)
    return head, left_out, order[:, :k]


def scalar_kl(p, q, merged):
    """KL over the classes of p and q, those in `merged` being one class."""
    pairs = [(p[c], q[c]) for c in range(len(p)) if c not in merged]
    if merged:
        pairs.append((sum(p[c] for c in merged), sum(q[c] for c in merged)))
    return sum(a * (math.log(a) - math.log(b)) for a, b in pairs if a > 0)


@given(LOGITS)
def test_log_softmax_is_the_logarithm_of_probabilities_that_sum_to_one(logits):
    found = np.exp(log_softmax(logits.astype(np.float32)))
    expected = [softmax(row) for row in logits.astype(np.float32).tolist()]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-300)


@given(LOGITS, LOGITS, st.integers(1, 7))
def test_kl_is_that_of_the_distributions_with_the_classes_not_stored_as_one(teacher, student, k):
    head, tail, classes = stored(teacher, k)
    found = predictive_kl(head, tail, classes, log_softmax(student))
    for row in range(3):
        p, q = softmax(teacher[row].tolist()), softmax(student[row].tolist())
        merged = set(range(7)) - set(classes[row].tolist())
        assert found[row] == pytest.approx(scalar_kl(p, q, merged), rel=1e-6, abs=1e-9)


@given(LOGITS, LOGITS, st.integers(1, 7))
def test_kl_is_never_negative_and_merging_classes_only_lowers_it(teacher, student, k):
    log_student = log_softmax(student)
    part = predictive_kl(*stored(teacher, k), log_student)
    whole = predictive_kl(*stored(teacher, 7), log_student)
    assert (part >= -1e-9).all()
    assert (part <= whole + 1e-9).all()


@given(LOGITS, st.integers(1, 7))
def test_kl_to_a_copy_of_the_teacher_is_zero(logits, k):
    found = predictive_kl(*stored(logits, k), log_softmax(logits))
    np.testing.assert_allclose(found, 0, atol=1e-9)


@given(LOGITS, LOGITS, st.integers(1, 7))
def test_total_variation_is_half_the_absolute_differences_and_merging_only_lowers_it(
    teacher, student, k
):
    log_student = log_softmax(student)
    found = total_variation(*stored(teacher, k), log_student)
    for row in range(3):
        p, q = softmax(teacher[row].tolist()), softmax(student[row].tolist())
        classes = stored(teacher, k)[2][row].tolist()
        pairs = [(p[c], q[c]) for c in classes]
        pairs.append((sum(p) - sum(a for a, _ in pairs), sum(q) - sum(b for _, b in pairs)))
        expected = sum(abs(a - b) for a, b in pairs) / 2
        assert found[row] == pytest.approx(expected, abs=1e-9)
    whole = total_variation(*stored(teacher, 7), log_student)
    assert (found <= whole + 1e-12).all()
    assert ((whole >= 0) & (whole <= 1 + 1e-12)).all()


@given(LOGITS, st.integers(1, 7))
def test_total_variation_to_a_copy_of_the_teacher_is_zero(logits, k):
    found = total_variation(*stored(logits, k), log_softmax(logits))
    np.testing.assert_allclose(found, 0, atol=1e-12)


@given(LOGITS, st.integers(0, 6))
def test_log_odds_are_those_of_the_probabilities_in_exact_arithmetic(logits, number):
    found = log_odds(log_softmax(logits), np.full(3, number))
    for row in range(3):
        weights = [Fraction(math.exp(z - max(logits[row]))) for z in logits[row].tolist()]
        others = sum(weights) - weights[number]
        expected = math.log(weights[number]) - math.log(others)
        assert found[row] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_log_odds_near_one_lose_nothing_to_rounding():
    """1 minus the probability is 0 in float64 here, and so its log-odds would be infinite."""
    logits = np.array([[0.0, -50.0, -60.0], [0.0, -700.0, -700.0]])
    found = log_odds(log_softmax(logits), np.array([0, 0]))
    assert found.tolist() == pytest.approx([50 - math.log1p(math.exp(-10)), 700 - math.log(2)])


@given(st.lists(st.permutations(range(8)), min_size=8, max_size=8))
def test_overlap_is_the_share_of_common_classes_whatever_their_order(lists):
    a, b = (np.array(lists[i::2])[:, :5] for i in (0, 1))
    expected = [len({*x} & {*y}) / 5 for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert overlap(a, b).tolist() == expected


@given(LOGITS, nst.arrays(np.int64, 3, elements=st.integers(0, 6)))
def test_nll_and_brier_score_of_the_own_label_are_scikit_learns(logits, target):
    log_probability = log_softmax(logits / 4)
    nll, brier = own_label(log_probability, target)
    known = {"labels": range(7)}
    probability = np.exp(log_probability)
    assert nll.mean() == pytest.approx(log_loss(target, probability, **known), abs=1e-9)
    expected = brier_score_loss(target, probability, scale_by_half=False, **known)
    assert brier.mean() == pytest.approx(expected, abs=1e-9)


def test_an_image_without_a_class_of_the_teacher_has_no_nll_and_no_brier_score():
    nll, brier = own_label(log_softmax(np.zeros((3, 4))), np.array([-1, 4, 3]))
    assert np.isnan(nll).tolist() == np.isnan(brier).tolist() == [True, True, False]
    assert (nll[2], brier[2]) == (pytest.approx(math.log(4)), pytest.approx(0.75))


def test_kl_of_a_class_that_the_teacher_excludes_is_zero_however_small_the_students_share():
    head, tail, classes = np.array([[1.0, 0.0]]), np.array([0.0]), np.array([[0, 1]])
    log_student = log_softmax(np.array([[0.0, -2000.0, -1000.0]]))
    assert predictive_kl(head, tail, classes, log_student)[0] == 0


@given(LOGITS)
def test_first_classes_come_in_order_of_probability_and_then_of_number(logits):
    classes, probability = first_classes(log_softmax(logits), 5)
    for row, values in enumerate(log_softmax(logits).tolist()):
        expected = sorted(range(7), key=lambda c: (-values[c], c))[:5]
        assert classes[row].tolist() == expected
    assert (np.diff(probability, axis=1) <= 0).all()


def test_a_target_counts_as_hit_wherever_it_is_among_the_classes():
    assert hits(np.array([[1, 2], [3, 4], [5, 6]]), np.array([2, 5, 5])).tolist() == [1, 0, 1]


def scalar_ece(confidence, correct):
    total = 0.0
    for b in range(NUM_BINS):
        low = -1.0 if b == 0 else b / NUM_BINS
        rows = [i for i, c in enumerate(confidence) if low < c <= (b + 1) / NUM_BINS]
        if rows:
            gap = sum(confidence[i] for i in rows) - sum(correct[i] for i in rows)
            total += abs(gap) / len(confidence)
    return total


PREDICTIONS = st.lists(
    st.tuples(st.floats(0, 1) | st.sampled_from([i / 15 for i in range(16)]), st.booleans()),
    min_size=1,
    max_size=40,
)


@given(PREDICTIONS)
def test_calibration_error_is_the_mean_gap_over_fifteen_bins_open_below(predictions):
    confidence, correct = map(list, zip(*predictions, strict=True))
    found = reliability(np.array(confidence), np.array(correct))
    assert found.ece == pytest.approx(scalar_ece(confidence, correct), abs=1e-12)
    assert 0 <= found.ece <= 1
    assert found.count.sum() == len(confidence)


def test_calibration_error_is_zero_where_confidence_is_accuracy_and_one_where_it_is_the_opposite():
    half = np.full(10, 0.5)
    assert reliability(half, np.arange(10) % 2 == 0).ece == 0
    assert reliability(np.ones(10), np.zeros(10, bool)).ece == 1


@settings(max_examples=20, deadline=None)
@given(PREDICTIONS)
def test_the_estimated_figures_are_those_of_the_scalar_definitions(predictions):
    confidence, correct = (np.array(x) for x in zip(*predictions, strict=True))
    where = np.arange(len(confidence)) % 3 != 1
    figures = estimate(
        {"mean": Mean(confidence, where), "ece": CalibrationError(confidence, correct, where)}
    )
    assert figures["mean"].value == pytest.approx(confidence[where].mean())
    expected = scalar_ece(confidence[where].tolist(), correct[where].tolist())
    assert figures["ece"].value == pytest.approx(expected, abs=1e-12)
    for figure in figures.values():
        assert 0 <= figure.low <= figure.high <= 1


def test_an_interval_is_as_wide_as_the_standard_error_says_and_holds_the_estimate():
    rng = np.random.default_rng(0)
    correct = rng.random(5000) < 0.7
    figure = estimate({"accuracy": Mean(correct, np.ones(5000, bool))})["accuracy"]
    half_width = 1.96 * math.sqrt(figure.value * (1 - figure.value) / 5000)
    assert figure.value - figure.low == pytest.approx(half_width, rel=0.15)
    assert figure.high - figure.value == pytest.approx(half_width, rel=0.15)


def test_an_interval_of_the_calibration_error_makes_good_that_noise_lifts_the_estimate():
    """Confidence is 0.02 above the truth; plain percentiles of resamples lie above that."""
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 1, 600)
    correct = rng.random(600) < confidence - 0.02
    measure = CalibrationError(confidence, correct, np.ones(600, bool))
    figure = estimate({"ece": measure})["ece"]
    assert figure.value > 2 * 0.02
    assert figure.low < 0.02 < figure.value < figure.high


def test_intervals_are_equal_for_equal_seeds_and_others_for_others():
    values = np.random.default_rng(2).random(50)
    measures = {"mean": Mean(values, np.ones(50, bool))}
    assert estimate(measures, seed=3) == estimate(measures, seed=3)
    assert estimate(measures, seed=3) != estimate(measures, seed=4)


def test_all_figures_are_taken_over_the_same_resamples():
    values = np.random.default_rng(2).random(50)
    every = np.ones(50, bool)
    figures = estimate({"a": Mean(values, every), "b": Mean(1 - values, every)})
    assert figures["a"].low == pytest.approx(1 - figures["b"].high)


def test_a_figure_without_images_is_left_out():
    nothing = np.zeros(4, bool)
    assert estimate({"a": Mean(np.ones(4), nothing)}) == {}
    figures = estimate({"a": Mean(np.ones(4), nothing), "b": Mean(np.ones(4), ~nothing)})
    assert set(figures) == {"b"}


def test_resamples_without_a_targeted_image_do_not_spoil_the_interval():
    one_of_many = np.arange(3) == 0
    figure = estimate({"a": Mean(np.full(3, 0.25), one_of_many)})["a"]
    assert (figure.low, figure.value, figure.high) == (0.25, 0.25, 0.25)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60, unique=True))
def test_equal_mass_bins_hold_as_many_images_each_as_can_be_in_order(confidence):
    bins = equal_mass_bin_of(np.array(confidence))
    count = np.bincount(bins, minlength=NUM_BINS)
    assert count.max() - count.min() <= 1
    assert (np.diff(bins[np.argsort(confidence)]) >= 0).all()


def test_images_of_one_confidence_share_a_bin_of_equal_mass():
    bins = equal_mass_bin_of(np.repeat([0.2, 0.9], 50))
    assert len(set(bins[:50].tolist())) == len(set(bins[50:].tolist())) == 1
    assert bins[0] < bins[-1]


def test_means_by_class_count_each_image_in_its_class_only():
    found = by_class(np.array([2, 0, 2, 2]), np.array([True, False, False, True]), 4)
    assert found.count.tolist() == [1, 0, 3, 0]
    assert found.mean.tolist() == [0, 0, pytest.approx(2 / 3), 0]
