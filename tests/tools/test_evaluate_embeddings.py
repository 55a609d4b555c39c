"""CKA and the correlation of cosines against their definitions, whole and resampled."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from softlabel.tools.evaluate import embeddings as module
from softlabel.tools.evaluate.bootstrap import resample_counts
from softlabel.tools.evaluate.embeddings import Embeddings, similarity_figures
from softlabel.tools.evaluate.features import features_of


def features(seed, n=40, widths=(6, 9), offset=3.0):
    rng = np.random.default_rng(seed)
    common = rng.normal(0, 1, (n, 4))
    return tuple(
        (common @ rng.normal(0, 1, (4, d)) + rng.normal(0, 0.5, (n, d)) + offset).astype(np.float32)
        for d in widths
    )


def filled(x, y, *, batch_size=7, key_hash=None):
    found = Embeddings()
    hashes = np.arange(len(x), dtype=np.uint64) if key_hash is None else key_hash
    for low in range(0, len(x), batch_size):
        part = slice(low, low + batch_size)
        found.add(x[part], y[part], key_hash=hashes[part])
    return found


def defined_cka(x, y):
    """Kornblith et al.'s formula by singular values of the whole centred matrices."""
    x, y = (v.astype(np.float64) - v.astype(np.float64).mean(0) for v in (x, y))
    norms = [np.sqrt((np.linalg.svd(p, compute_uv=False) ** 2).sum())
             for p in (x.T @ y, x.T @ x, y.T @ y)]  # fmt: skip
    return norms[0] ** 2 / (norms[1] * norms[2])


def defined_correlation(x, y, images=None):
    """Pairs of different images, one by one."""
    images = range(len(x)) if images is None else images
    x, y = (v.astype(np.float64) for v in (x, y))
    pairs = [(i, j) for i in images for j in images if i != j]
    cosines = [
        [v[i] @ v[j] / np.sqrt((v[i] @ v[i]) * (v[j] @ v[j])) for i, j in pairs] for v in (x, y)
    ]
    return np.corrcoef(cosines)[0, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 30), st.floats(-50, 50), st.integers(1, 9))
def test_cka_and_correlation_are_their_definitions_whatever_the_batches(seed, n, offset, batch):
    x, y = features(seed, n, offset=offset)
    figures, _ = similarity_figures({"student": filled(x, y, batch_size=batch)})
    cka, correlation = (figures["student"][name] for name in ("cka", "cosine_correlation"))
    assert cka.value == pytest.approx(defined_cka(x, y), abs=1e-9)
    assert correlation.value == pytest.approx(defined_correlation(x, y), abs=1e-6)
    assert cka.low <= cka.value <= cka.high <= 1
    assert cka.n == correlation.n == n


def defined_unbiased_cka(x, y, images):
    """HSIC image by image: means over pairs, triples and quadruples of different images."""
    K, L = x @ x.T, y @ y.T
    drawn = list(images)

    def hsic(A, B):
        sums, numbers = np.zeros(3), np.zeros(3)
        for size in (2, 3, 4):
            for chosen in product(drawn, repeat=size):
                if len(set(chosen)) < size:
                    continue
                i, j, *more = chosen
                other = {2: (i, j), 3: (i, *more), 4: tuple(more)}[size]
                sums[size - 2] += A[i, j] * B[other]
                numbers[size - 2] += 1
        pairs, triples, quadruples = sums / numbers
        return pairs - 2 * triples + quadruples

    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def test_resampled_figures_are_those_of_the_images_drawn():
    x, y = (v.astype(np.float64) for v in features(1, 9))
    counts = next(resample_counts(9, seed=3))[:3]
    aligned = module._alignment(x, y)(counts)
    correlated = module._cosine_correlation(x, y)(counts)
    for number, row in enumerate(counts.astype(int)):
        images = np.repeat(np.arange(9), row)
        wanted = defined_unbiased_cka(x - x.mean(0), y - y.mean(0), images.tolist())
        assert aligned[number] == pytest.approx(wanted, abs=1e-7)
        expected = defined_correlation(x, y, images.tolist())
        assert correlated[number] == pytest.approx(expected, abs=1e-7)


def test_undrawn_unbiased_cka_is_song_and_others_formula():
    x, y = (v.astype(np.float64) for v in features(6, 15))
    K, L = x @ x.T, y @ y.T
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)

    def hsic(A, B, n=15):
        one = np.ones(n)
        whole = one @ A @ one * (one @ B @ one) / ((n - 1) * (n - 2))
        return (np.trace(A @ B) + whole - 2 / (n - 2) * one @ A @ B @ one) / (n * (n - 3))

    wanted = hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))
    assert module._alignment(x, y)(np.ones((1, 15)))[0] == pytest.approx(wanted, abs=1e-9)


def test_the_interval_of_cka_reaches_to_both_sides_of_its_value():
    x, y = features(7, 200)
    cka = similarity_figures({"student": filled(x, y)})[0]["student"]["cka"]
    assert cka.low < cka.value - 0.005
    assert cka.high > cka.value + 0.005


def test_too_few_images_tell_nothing_of_cka():
    x, y = features(8, 3)
    cka = similarity_figures({"student": filled(x, y)})[0]["student"]["cka"]
    assert [cka.low, cka.high] == [0, 1]


def test_a_rotated_and_scaled_copy_is_the_same_arrangement_and_noise_is_not():
    x, _ = features(2, 300)
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(0, 1, (6, 6)))
    figures, differences = similarity_figures(
        {
            "student": filled(x, (2.5 * x @ turn).astype(np.float32)),
            "control": filled(x, np.random.default_rng(1).normal(0, 1, (300, 5))),
        }
    )
    copy, noise = figures["student"], figures["control"]
    for name in ("cka", "cosine_correlation"):
        found = [copy[name].low, copy[name].value, copy[name].high]
        assert found == pytest.approx([1, 1, 1], abs=1e-5)
        assert differences[name].value == pytest.approx(copy[name].value - noise[name].value)
        assert differences[name].low > 0.5
    assert noise["cka"].value < 0.1


def test_features_that_never_change_have_no_figures():
    x, _ = features(3)
    figures, differences = similarity_figures({"student": filled(x, np.full((40, 5), 0.3))})
    assert figures == {"student": {}}
    assert differences == {}


def test_only_the_smallest_key_hashes_are_kept_and_cka_is_of_all(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 20)
    x, y = features(4, 90)
    key_hash = np.random.default_rng(5).permutation(90).astype(np.uint64)
    found = filled(x, y, key_hash=key_hash)
    assert sum(map(len, found._key_hash)) <= 40
    images = np.argsort(key_hash)[:20]
    assert np.array_equal(found.kept()[0], x[images])
    figures, _ = similarity_figures({"student": found})
    cka, correlation = (figures["student"][name] for name in ("cka", "cosine_correlation"))
    assert cka.value == pytest.approx(defined_cka(x, y), abs=1e-9)
    assert (cka.n, cka.interval_n, cka.resamples) == (90, 20, module.RESAMPLES)
    assert correlation.value == pytest.approx(defined_correlation(x[images], y[images]), abs=1e-6)
    assert (correlation.n, correlation.interval_n) == (20, None)


def test_features_are_what_the_last_layer_with_the_classes_takes():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    images = torch.randn(4, 3, 2, 2)
    with torch.no_grad(), features_of(student, 3) as caught:
        logits = student(images)
        expected = student[:3](images)
    assert torch.equal(caught.features, expected)
    assert torch.equal(student[3](caught.features), logits)
    assert not any(m._forward_pre_hooks for m in student.modules())


def test_a_student_without_a_linear_head_has_no_features():
    student = nn.Sequential(nn.Conv2d(3, 7, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad(), features_of(student, 7) as caught:
        student(torch.randn(2, 3, 4, 4))
    assert caught.features is None
