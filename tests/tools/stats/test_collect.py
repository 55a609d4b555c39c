"""Statistics of sources against the same figures from dense logits in float64."""

import json

import numpy as np
import pytest
import scipy.special
import scipy.stats

from softlabel.shards.errors import UsageError
from softlabel.shards.sources import parse_source_by
from softlabel.shards.status import Status
from softlabel.tools.stats import collect as collecting
from softlabel.tools.stats.collect import EVERYTHING, collect, source_statistics
from softlabel.tools.stats.source import QUANTILES
from softlabel.tools.stats.values import measures
from softlabel.tools.store_stats import store_stats


def reference(z: np.ndarray, top_k: int) -> dict[str, np.ndarray]:
    """Values of all labels [n * V] from dense logits [n, V, C]."""
    z = z.reshape(-1, z.shape[-1])
    p = np.sort(scipy.special.softmax(z, axis=1), axis=1)[:, ::-1]
    spread = p.copy()
    if top_k < p.shape[1]:
        spread[:, top_k:] = p[:, top_k:].mean(1, keepdims=True)
    tempered = np.sort(scipy.special.softmax(z / 4, axis=1), axis=1)[:, ::-1]
    return {
        "p1": p[:, 0],
        "entropy": scipy.stats.entropy(spread, axis=1),
        "energy": -scipy.special.logsumexp(z, axis=1),
        "tail at 1": p[:, top_k:].sum(1),
        "tail at 4": tempered[:, top_k:].sum(1),
    }


@pytest.mark.parametrize(("top_k", "views"), [(3, 1), (3, 2), (6, 1)])
def test_every_figure_of_a_source_is_that_of_its_dense_logits(
    build_store, make_rows, make_manifest, dense, top_k, views
):
    m = make_manifest(top_k=top_k, views=views)
    parts = [dense(n, seed=seed, views=views) for seed, n in enumerate((37, 53, 21))]
    names = ["d/a-0000.tar", "d/a-0001.tar", "d/b-0000.tar"]
    store = build_store(dict(zip(names, (make_rows(m, z) for z in parts), strict=True)), m)
    found = {source.name: source for source in source_statistics(store)}
    assert set(found) == {"a", "b"}
    for name, z in {"a": np.concatenate(parts[:2]), "b": parts[2]}.items():
        source = found[name]
        wanted = reference(z, top_k)
        assert tuple(wanted) == measures(m)
        assert (source.rows, source.labelled, source.labels) == (len(z), len(z), len(z) * views)
        for measure, values in wanted.items():
            distribution = source.distributions[measure]
            assert distribution.mean == pytest.approx(values.mean(), rel=1e-5, abs=1e-7), measure
            quantiles = np.quantile(values, QUANTILES)
            assert distribution.quantiles == pytest.approx(quantiles, rel=1e-5, abs=1e-7)
        histogram = np.bincount(z[:, 0].argmax(-1), minlength=6)
        assert (source.class_histogram == histogram).all()
        assert source.effective_classes == pytest.approx(np.exp(scipy.stats.entropy(histogram)))
        assert source.saturated == (wanted["p1"] > 0.999).sum()
        order = sorted(range(6), key=lambda c: (-histogram[c], c))
        assert source.most_frequent == tuple((c, histogram[c]) for c in order if histogram[c])
        assert source.quantiles_exact
        assert source.duplicates_exact


def test_the_k_that_is_enough_is_told_for_each_temperature(build_store, make_rows, make_manifest):
    m = make_manifest(top_k=5)
    z = np.log([[[0.5, 0.3, 0.16, 0.02, 0.01, 0.01]]])
    whole = collect(build_store({"a.tar": make_rows(m, z)}, m)).whole
    assert whole.wanted_top_k[1.0] == (3, True)
    tempered = np.array([0.5, 0.3, 0.16, 0.02, 0.01, 0.01]) ** 0.25
    enough = int(np.searchsorted(np.cumsum(tempered / tempered.sum()), 0.95)) + 1
    k, exact = whole.wanted_top_k[4.0]
    assert enough == 6
    assert (k, exact) == (6, False)


def test_sources_come_with_the_most_effective_classes_first(build_store, make_rows, make_manifest):
    m = make_manifest()
    one_class = np.tile([9.0, 1, 2, 3, 4, 5], (60, 1, 1))
    even = np.stack([np.roll([9.0, 1, 2, 3, 4, 5], i) for i in range(60)])[:, None]
    few = even[np.arange(60) % 2]
    tars = {"one-0.tar": one_class, "few-0.tar": few, "even-0.tar": even}
    store = build_store({name: make_rows(m, z) for name, z in tars.items()}, m)
    found = source_statistics(store)
    assert [source.name for source in found] == ["even", "few", "one"]
    assert [source.effective_classes for source in found] == pytest.approx([6, 2, 1])


def test_bad_rows_count_by_status_and_in_no_other_figure(
    build_store, make_rows, make_manifest, dense
):
    m = make_manifest()
    z = dense(20, seed=0)
    status = np.ones(20)
    status[[3, 4, 11]] = [2, 3, 3]
    images = np.arange(20)
    images[[3, 4, 5]] = 7  # two bad ones and a good one: a single copy
    store = build_store({"a.tar": make_rows(m, z, status=status, image_hash=images)}, m)
    (source,) = source_statistics(store)
    assert source.status == {Status.OK: 17, Status.NO_IMAGE: 1, Status.UNDECODABLE: 2}
    assert (source.rows, source.labelled, source.bad, source.duplicates) == (20, 17, 3, 1)
    good = reference(z[status == 1], 3)
    assert source.distributions["p1"].mean == pytest.approx(good["p1"].mean(), rel=1e-5)
    assert source.class_histogram.sum() == 17


def test_copies_are_counted_within_a_source_within_a_tar_and_between_sources(
    build_store, make_rows, make_manifest, dense
):
    m = make_manifest()
    images = {"a-0.tar": [1, 1, 1, 2], "a-1.tar": [2, 3, 4, 5], "b-0.tar": [3, 3, 6, 7]}
    rows = {
        name: make_rows(m, dense(4, seed=seed), image_hash=own)
        for seed, (name, own) in enumerate(images.items())
    }
    found = collect(build_store(rows, m))
    by_name = {source.name: source for source in found.sources}
    assert (by_name["a"].duplicates, by_name["a"].shared) == (3, 1)
    assert (by_name["b"].duplicates, by_name["b"].shared) == (1, 2)
    assert [tar.duplicates for tar in found.tars] == [2, 0, 1]
    assert found.whole.duplicates == 12 - 7


def test_sources_by_key_and_json_split_a_tar(tmp_path, build_store, make_rows, make_manifest, dense,
                                             write_tar):  # fmt: skip
    m = make_manifest()
    files = []
    for i in range(12):
        files.append((f"{'xy'[i % 2]}/{i}.png", b"p"))
        files.append((f"{'xy'[i % 2]}/{i}.json", json.dumps({"from": {"site": i % 3}}).encode()))
    tar = str(write_tar(tmp_path / "t.tar", files))
    z = dense(12, seed=5)
    store = build_store({tar: make_rows(m, z)}, m)
    for text, code in (("key:^(.)/", np.arange(12) % 2), ("json:from.site", np.arange(12) % 3)):
        by = parse_source_by(text)
        found = {s.name: s for s in source_statistics(store, by=by, urls={0: tar})}
        for number, name in enumerate(sorted(found)):
            own = z[code == number]
            assert found[name].rows == len(own)
            mean = reference(own, 3)["energy"].mean()
            assert found[name].distributions["energy"].mean == pytest.approx(mean, rel=1e-6)
        with pytest.raises(UsageError, match="give them with --shards"):
            source_statistics(store, by=by)


def test_the_whole_is_its_sources_together(build_store, make_rows, make_manifest, dense):
    m = make_manifest()
    tars = {f"{name}-0.tar": dense(30, seed=seed) for seed, name in enumerate("abc")}
    store = build_store({name: make_rows(m, z) for name, z in tars.items()}, m)
    whole = collect(store).whole
    wanted = reference(np.concatenate(list(tars.values())), 3)
    assert whole.name == EVERYTHING
    assert whole.num_tars == 3
    for measure, values in wanted.items():
        assert whole.distributions[measure].mean == pytest.approx(values.mean(), rel=1e-5)


def test_means_stay_exact_where_quantiles_are_of_a_sample(
    build_store, make_rows, make_manifest, dense, monkeypatch
):
    monkeypatch.setattr(collecting, "EXACT_IMAGES", 16)
    m = make_manifest()
    z = [dense(40, seed=seed) for seed in (0, 1)]
    rows = [make_rows(m, part) for part in z]
    (source,) = source_statistics(
        build_store(dict(zip(["a-0.tar", "a-1.tar"], rows, strict=True)), m)
    )
    keys = np.concatenate([r["key_hash"] for r in rows])
    wanted = reference(np.concatenate(z), 3)["p1"]
    assert not source.quantiles_exact
    assert source.distributions["p1"].mean == pytest.approx(wanted.mean(), rel=1e-5)
    chosen = np.quantile(wanted[np.argsort(keys)[:16]], QUANTILES)
    assert source.distributions["p1"].quantiles == pytest.approx(chosen, rel=1e-5)


def test_samples_of_many_sources_are_smaller_and_equally_so(
    build_store, make_rows, make_manifest, dense, monkeypatch
):
    monkeypatch.setattr(collecting, "_SAMPLED_NUMBERS", 3 * 5 * 7)  # 7 images of 5 numbers each
    monkeypatch.setattr(collecting, "FEWEST_IMAGES", 2)
    m = make_manifest()
    z = {f"{name}-0.tar": dense(30, seed=seed) for seed, name in enumerate("abc")}
    rows = {name: make_rows(m, part) for name, part in z.items()}
    for source in source_statistics(build_store(rows, m)):
        own = np.argsort(rows[f"{source.name}-0.tar"]["key_hash"])[:7]
        wanted = np.sort(reference(z[f"{source.name}-0.tar"], 3)["p1"][own])
        assert np.sort(source.sample[:, 0]) == pytest.approx(wanted, rel=1e-5)


def test_too_many_sources_are_a_slip_of_the_pattern(
    build_store, make_rows, make_manifest, dense, monkeypatch
):
    monkeypatch.setattr(collecting, "MOST_SOURCES", 2)
    m = make_manifest()
    store = build_store({f"{c}.tar": make_rows(m, dense(3, seed=i)) for i, c in enumerate("abc")})
    with pytest.raises(UsageError, match="more than 2 sources"):
        source_statistics(store)


def test_a_store_without_a_labelled_tar_and_one_without_a_member_have_figures(
    build_store, make_rows, make_manifest
):
    m = make_manifest()
    store = build_store({"a.tar": None, "b.tar": None}, m)
    assert source_statistics(store) == []
    json.dumps(store_stats(store), allow_nan=False)
    store.write(0, make_rows(m, np.zeros((0, 1, 6))), tar_size=1, tar_sha256="0" * 64)
    (source,) = source_statistics(store)
    assert (source.rows, source.effective_classes, dict(source.distributions)) == (0, 0.0, {})
    json.dumps(store_stats(store), allow_nan=False)
