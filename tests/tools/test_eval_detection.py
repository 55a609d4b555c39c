"""OOD detection: scores by their definition, metrics against scikit-learn and by counting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from scipy.special import logsumexp, softmax
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from softlabel.tools.evaluate.bootstrap import RESAMPLES
from softlabel.tools.evaluate.ood.detection import (
    METRICS,
    Ranking,
    aupr,
    auroc,
    fpr95,
    logit_scores,
    resampled,
    roc,
    values,
)
from softlabel.tools.evaluate.ood.neighbours import Neighbours

# Few distinct values, so that ties between and within the groups are the rule.
SCORE = st.integers(0, 4).map(float) | st.floats(-50, 50, width=32)


@st.composite
def weighted(draw):
    """ID and OOD scores with integer weights, each group with some weight."""
    found = []
    for _ in range(2):
        n = draw(st.integers(1, 24))
        weight = draw(arrays(np.float64, n, elements=st.integers(0, 5).map(float)))
        weight[draw(st.integers(0, n - 1))] += 1
        score = draw(arrays(np.float64, n, elements=SCORE) | st.just(np.full(n, 2.0)))
        found += [score, weight]
    return found


def labelled(id_score, ood_score):
    return np.r_[np.ones(len(id_score)), np.zeros(len(ood_score))], np.r_[id_score, ood_score]


@settings(max_examples=150, deadline=None)
@given(weighted())
def test_weighted_metrics_are_those_of_scikit_learn(case):
    id_score, id_weight, ood_score, ood_weight = case
    label, score = labelled(id_score, ood_score)
    weight = np.r_[id_weight, ood_weight]
    found = Ranking(id_score, ood_score).metrics(id_weight[None], ood_weight[None])
    assert found["auroc"][0] == pytest.approx(
        roc_auc_score(label, score, sample_weight=weight), abs=1e-9
    )
    assert found["aupr"][0] == pytest.approx(
        average_precision_score(label, score, sample_weight=weight), abs=1e-9
    )
    false, true, _ = roc_curve(label, score, sample_weight=weight, drop_intermediate=False)
    assert found["fpr95"][0] == pytest.approx(false[true >= 0.95 - 1e-12][0], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(weighted())
def test_a_weight_is_a_repetition(case):
    id_score, id_weight, ood_score, ood_weight = case
    repeated = (
        np.repeat(id_score, id_weight.astype(int)),
        np.repeat(ood_score, ood_weight.astype(int)),
    )
    found = Ranking(id_score, ood_score).metrics(id_weight[None], ood_weight[None])
    for name, value in values(*repeated).items():
        assert found[name][0] == pytest.approx(value, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(weighted())
def test_metrics_are_what_counting_gives(case):
    id_score, _, ood_score, _ = case
    pairs = [(i > o) + (i == o) / 2 for i in id_score for o in ood_score]
    assert auroc(id_score, ood_score) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    passing = [t for t in id_score if sum(s >= t for s in id_score) / len(id_score) >= 0.95]
    share = sum(o >= max(passing) for o in ood_score) / len(ood_score)
    assert fpr95(id_score, ood_score) == pytest.approx(share, abs=1e-12)


def test_of_twenty_id_images_the_lowest_may_fail_and_of_nineteen_none():
    ood = np.array([0.5, 1.5, 2.5])
    assert fpr95(np.arange(20.0), ood) == pytest.approx(2 / 3)
    assert fpr95(np.arange(19.0), ood) == pytest.approx(1.0)


def test_a_score_that_separates_is_perfect_and_a_constant_one_says_nothing():
    high, low = np.array([3.0, 4.0, 5.0]), np.array([0.0, 1.0, 2.0, 2.5])
    assert values(high, low) == {"auroc": 1.0, "fpr95": 0.0, "aupr": 1.0}
    assert values(low, high)["auroc"] == 0
    assert values(np.zeros(3), np.zeros(4)) == {
        "auroc": 0.5, "fpr95": 1.0, "aupr": pytest.approx(3 / 7),
    }  # fmt: skip


def test_no_image_of_one_kind_is_refused():
    for metric in (auroc, aupr, fpr95):
        with pytest.raises(ValueError, match="wanted ID and OOD images"):
            metric(np.ones(3), np.zeros(0))


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, (5, 7), elements=st.floats(-300, 300, width=32)))
def test_scores_are_their_definition(logits):
    z = logits.astype(np.float64)
    found = logit_scores(logits)
    np.testing.assert_allclose(found["max_softmax"], softmax(z, axis=1).max(1), rtol=1e-12)
    np.testing.assert_allclose(found["energy"], logsumexp(z, axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found["max_logit"], z.max(1))


def test_resamples_draw_both_kinds_apart_and_repeat_with_their_seed():
    rng = np.random.default_rng(0)
    id_score, ood_score = rng.normal(1, 1, 60), rng.normal(0, 1, 40)
    scores = {"one": (id_score, ood_score), "flat": (0 * id_score, 0 * ood_score)}
    found, again, other = resampled(scores), resampled(scores), resampled(scores, seed=1)
    assert set(found) == {f"{score}/{metric}" for score in scores for metric in METRICS}
    for metric, point in values(id_score, ood_score).items():
        name = f"one/{metric}"
        assert found[name].shape == (RESAMPLES,)
        assert (found[name] == again[name]).all()
        assert (found[name] != other[name]).any()
        assert np.quantile(found[name], 0.01) < point < np.quantile(found[name], 0.99)
    assert (found["flat/auroc"] == 0.5).all()
    # The standard deviation of a bootstrapped AUROC by hand: resample and count pairs.
    by_hand = [
        np.mean(rng.choice(id_score, 60)[:, None] > rng.choice(ood_score, 40)) for _ in range(1000)
    ]
    assert found["one/auroc"].std() == pytest.approx(np.std(by_hand), rel=0.15)


def test_scores_of_other_images_have_no_common_resamples():
    with pytest.raises(ValueError, match="same images"):
        resampled({"a": (np.ones(3), np.ones(2)), "b": (np.ones(3), np.ones(3))})


def test_the_curve_begins_at_nothing_ends_at_all_and_has_the_area():
    rng = np.random.default_rng(0)
    id_score, ood_score = np.round(rng.normal(1, 1, 60), 1), np.round(rng.normal(0, 1, 40), 1)
    false, true = roc(id_score, ood_score)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(true, false) == pytest.approx(auroc(id_score, ood_score), abs=1e-12)


@pytest.mark.parametrize("width", [1, 3, 33])
def test_the_neighbour_score_is_the_largest_cosine_and_never_that_with_itself(width):
    rng = np.random.default_rng(width)
    bank, queries = rng.normal(size=(1100, width)), rng.normal(size=(7, width)) * 100
    bank[3] = bank[8]
    found = Neighbours(bank)
    cosine = 1 - cdist(queries, bank, "cosine")
    np.testing.assert_allclose(found.scores(queries), cosine.max(1), atol=1e-6)
    own = 1 - cdist(bank, bank, "cosine")
    np.fill_diagonal(own, -np.inf)
    np.testing.assert_allclose(found.own_scores(), own.max(1), atol=1e-6)
    assert found.own_scores()[3] == pytest.approx(1, abs=1e-6)


def test_an_embedding_without_a_direction_is_near_nothing():
    found = Neighbours(np.array([[1.0, 0.0], [0.0, 2.0]]))
    assert found.scores(np.array([[0.0, 0.0], [3.0, 3.0]])) == pytest.approx([0, 0.5**0.5])
    with pytest.raises(ValueError, match="two embeddings"):
        Neighbours(np.ones((1, 2))).own_scores()
