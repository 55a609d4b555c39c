"""Scores of confidence and their ranks, against dense float64 arithmetic and scipy-like ranking."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabel.trainer.scores import NEEDED, Ranks, score_of


def dense(collection, tar):
    """What each score is, from the logits that the fixture's labels were cut from."""
    arrays = collection.store.read(tar)
    manifest = collection.store.manifest
    z = arrays["topk_logit"][:, 0].astype(np.float64)
    tail = np.exp(arrays["tail_lse"][:, 0, 0].astype(np.float64))
    total = np.exp(z).sum(1) + tail
    p = np.exp(z) / total[:, None]
    rest = tail / total
    left = manifest.num_classes - manifest.top_k
    entropy = -(p * np.log(p)).sum(1) - rest * np.log(rest / left)
    return arrays, {
        "p1": np.log(p[:, 0] / (1 - p[:, 0])),
        "entropy": -np.log(entropy),
        "energy": arrays["max_logit"][:, 0] + np.log(total),
        "max-logit": arrays["max_logit"][:, 0].astype(np.float64),
    }


@pytest.mark.parametrize("score", list(NEEDED))
def test_scores_are_those_of_dense_arithmetic(collection, score):
    arrays, wanted = dense(collection, 1)
    given = {name: arrays[name] for name in NEEDED[score]}
    assert np.allclose(score_of(score, given, collection.store.manifest), wanted[score], rtol=1e-6)


def test_energy_keeps_its_temperature_where_the_smallest_stored_one_is_above_1(
    make_collection, tmp_path
):
    made = make_collection(tmp_path, 1, 20, temperatures=(2.0, 4.0))
    arrays = made.store.read(0)
    z = arrays["topk_logit"][:, 0].astype(np.float64)
    total = np.exp(z / 2).sum(1) + np.exp(arrays["tail_lse"][:, 0, 0].astype(np.float64))
    found = score_of("energy", arrays, made.store.manifest)
    assert np.allclose(found, arrays["max_logit"][:, 0] + 2 * np.log(total), rtol=1e-6)


values = st.lists(
    st.floats(-1e6, 1e6, allow_nan=False, width=32) | st.sampled_from([0.0, 1.0, -1.0]),
    min_size=1,
    max_size=200,
)


@given(values=values, cut=st.integers(0, 200))
def test_ranks_rise_with_the_score_and_have_the_mean_of_their_ties(values, cut):
    scores = np.array(values)
    ranks = Ranks()
    ranks.add(scores[:cut])
    ranks.add(scores[cut:])
    found = ranks.of(scores)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.mean() == pytest.approx(0.5)


def test_ranks_tell_apart_what_differs_by_one_in_128():
    scores = np.array([-50.0, -1.01, -1.0, -1e-9, 0.0, 1e-9, 1.0, 1.01, 50.0])
    ranks = Ranks()
    ranks.add(scores)
    assert np.allclose(ranks.of(scores), (np.arange(9) + 0.5) / 9)
