import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabel.shards.errors import UsageError
from softlabel.shards.statistics import LabelStatistics, probabilities
from softlabel.shards.tails import interpolation_error, tail_at

STORED = (1.0, 2.0, 4.0, 8.0)


def softmax_split(z: np.ndarray, k: int, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Head probabilities and tail mass in float64, straight from the definition."""
    p = np.exp((z - z.max(-1, keepdims=True)) / t)
    p /= p.sum(-1, keepdims=True)
    ordered = -np.sort(-p, axis=-1)
    return ordered[..., :k], ordered[..., k:].sum(-1)


def stored_labels(z: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    relative = -np.sort(-z, axis=-1) - z.max(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        tails = [np.log(np.exp(relative[..., k:] / t).sum(-1)) for t in STORED]
    return relative[..., :k].astype(np.float16), np.stack(tails, -1).astype(np.float32)


@given(st.integers(0, 2**32), st.integers(1, 30), st.sampled_from([30, 300]), st.floats(0.1, 6))
def test_probabilities_at_stored_temperatures_are_the_softmax(seed, k, num_classes, spread):
    z = np.random.default_rng(seed).normal(0, spread, (4, num_classes))
    logit, tail = stored_labels(z, k)
    for t in STORED:
        head, mass = probabilities(
            logit, tail, temperatures=STORED, temperature=t, num_not_stored=num_classes - k
        )
        exact_head, exact_mass = softmax_split(z, k, t)
        # float16 keeps 11 bits of a relative logit d: an error of 2^-12 |d| in the exponent.
        budget = 1e-6 + np.abs(logit.astype(float)).max() * 2.0**-11
        np.testing.assert_allclose(head, exact_head, rtol=budget)
        np.testing.assert_allclose(mass, exact_mass, rtol=budget, atol=1e-12)


@pytest.mark.parametrize(("temperature", "bound"), [(3.0, 0.002), (1.5, 0.02), (16.0, 0.02)])
def test_between_and_above_the_stored_temperatures_the_stated_bound_holds(temperature, bound):
    z = np.random.default_rng(1).normal(0, 2, (50, 1000))
    _, tail = stored_labels(z, 16)
    found = tail_at(tail, temperatures=STORED, temperature=temperature, num_not_stored=984)
    relative = -np.sort(-z, axis=-1) - z.max(-1, keepdims=True)
    exact = np.log(np.exp(relative[:, 16:] / temperature).sum(-1))
    assert np.abs(found - exact).max() < bound
    assert interpolation_error(STORED, temperature) < 10 * bound


def test_stored_temperatures_are_given_back_to_the_bit():
    _, tail = stored_labels(np.random.default_rng(2).normal(0, 2, (5, 100)), 10)
    for i, t in enumerate(STORED):
        found = tail_at(tail, temperatures=STORED, temperature=t, num_not_stored=90)
        assert found.tobytes() == np.ascontiguousarray(tail[..., i]).tobytes()
        assert interpolation_error(STORED, t) == 0


def test_where_every_class_is_stored_there_is_no_tail_at_any_temperature():
    tail = np.full((3, 4), -np.inf, np.float32)
    for t in (1.0, 3.0, 100.0):
        found = tail_at(tail, temperatures=STORED, temperature=t, num_not_stored=0)
        assert np.isneginf(found).all()


@pytest.mark.parametrize("temperature", [0.5, 0.0, -1.0, float("nan")])
def test_below_the_smallest_stored_temperature_is_refused(temperature):
    with pytest.raises(UsageError, match="below the smallest stored one"):
        tail_at(
            np.zeros((1, 4), "f4"), temperatures=STORED, temperature=temperature, num_not_stored=1
        )


def test_statistics_are_those_of_the_full_softmax():
    rng = np.random.default_rng(3)
    z = np.concatenate([rng.normal(0, 2, (200, 100)), 40 * np.eye(100)])
    logit, tail = stored_labels(z, 10)
    statistics = LabelStatistics(STORED, 90)
    for part in range(3):
        statistics.add(logit[part::3], tail[part::3])
    head, mass = softmax_split(z, 10, 1.0)
    assert statistics.rows == 300
    assert statistics.mean_tail == pytest.approx(mass.mean(), rel=1e-3)
    assert statistics.mean_confidence == pytest.approx(head[:, 0].mean(), rel=1e-3)
    assert statistics.saturated_share == pytest.approx((head[:, 0] > 0.999).mean())


def test_the_k_that_is_enough_is_counted_within_and_bounded_beyond_the_stored_classes():
    z = np.log(np.array([[0.5, 0.3, 0.16, 0.02, 0.01, 0.01]]))
    statistics = LabelStatistics(STORED, 2)
    statistics.add(*stored_labels(z, 4))
    assert statistics.wanted_top_k() == (3, True)
    statistics = LabelStatistics(STORED, 4)
    statistics.add(*stored_labels(z, 2))
    wanted, exact = statistics.wanted_top_k()
    assert not exact
    assert wanted == 3  # 0.20 is left out, one more class may hold at most 0.30
