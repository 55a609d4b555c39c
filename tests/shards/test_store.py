import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softlabel.shards.errors import IdentityError, MachineError, StoreError, UsageError
from softlabel.shards.invariants import problems, tree
from softlabel.shards.store import Store, delete_store, is_store, open_store, remove_leftovers


def test_what_was_written_is_read_back_and_only_that_is_committed(make_store, make_labels):
    store = make_store(3)
    assert store.pending() == [2]
    again = open_store(store.path)
    assert (again.store_id, again.tars, again.pending()) == (store.store_id, store.tars, [2])
    for tar in range(2):
        wanted = make_labels(store.manifest, 20, seed=tar)
        found = again.read(tar)
        assert set(found) == set(wanted)
        for name, value in wanted.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    num_rows=st.integers(0, 300),
    views=st.integers(1, 3),
    top_k=st.integers(1, 12),
    num_classes=st.sampled_from([12, 65_536, 65_537]),
    embedding_dim=st.sampled_from([None, 5]),
    temperatures=st.sampled_from([(1.0,), (0.5, 1.0, 4.0)]),
)
def test_any_shape_survives_the_round_trip(
    tmp_path_factory, make_manifest, make_labels, num_rows, **shape
):
    path = tmp_path_factory.mktemp("store")
    store = Store.create(path, make_manifest(rows_per_tar=512, **shape), ["a.tar"])
    rows = make_labels(store.manifest, num_rows)
    store.write(0, rows, tar_size=10**6, tar_sha256="0" * 64)
    assert not list(problems(store))
    for name, value in open_store(path).read(0).items():
        np.testing.assert_array_equal(value, rows[name], err_msg=name)


def test_plain_zarr_reads_every_array_with_no_help_from_us(make_store, make_labels):
    store = make_store(3)
    group = zarr.open(store.path, mode="r")
    for name, wanted in make_labels(store.manifest, 20, seed=1).items():
        array = group[name]
        assert array.shape[:2] == (3, 256)
        assert array.shards == (1, 256, *array.shape[2:])
        np.testing.assert_array_equal(array[1, :20], wanted)
        assert not array[1, 20:].any()
        assert not array[2].any()


def test_the_inner_chunks_end_in_crc32c_and_keys_have_dots(make_store):
    store = make_store(2)
    for spec in store.manifest.arrays:
        meta = json.loads((store.path / spec.name / "zarr.json").read_text())
        inner = meta["codecs"][0]["configuration"]
        assert inner["chunk_shape"][:2] == [1, 256]
        assert [codec["name"] for codec in inner["codecs"]] == ["bytes", "blosc", "crc32c"]
        assert inner["codecs"][1]["configuration"]["cname"] == "zstd"
        assert inner["codecs"][1]["configuration"]["shuffle"] == "bitshuffle"
        zeros = ".0" * (1 + len(spec.axes))
        assert (store.path / spec.name / f"c.0{zeros}").is_file()


def test_equal_labels_are_equal_bytes_in_whatever_order_they_came(
    tmp_path, make_manifest, make_labels
):
    trees = []
    for order in ([0, 1, 2], [2, 0, 1]):
        store = Store.create(tmp_path / str(order), make_manifest(), ["a.tar", "b.tar", "c.tar"])
        for tar in order:
            rows = make_labels(store.manifest, 9, seed=tar)
            store.write(tar, rows, tar_size=10**6, tar_sha256="0" * 64)
        trees.append(tree(store.path))
    assert trees[0] == trees[1]


def test_a_second_commit_of_a_tar_changes_nothing(make_store, make_labels):
    store = make_store(2)
    before = tree(store.path)
    other = make_labels(store.manifest, 5, seed=99)
    assert not store.write(0, other, tar_size=1, tar_sha256="0" * 64)
    assert tree(store.path) == before


@pytest.mark.parametrize("name", ["topk_logit", "status", "tail_lse"])
def test_rows_of_another_shape_or_dtype_are_a_bug(make_store, make_labels, name):
    store = make_store(1)
    rows = make_labels(store.manifest, 5)
    rows[name] = rows[name].astype(np.float64)
    with pytest.raises(ValueError, match=name):
        store.write(0, rows, tar_size=1, tar_sha256="0" * 64)


def test_more_rows_than_the_store_reserves_are_a_bug(make_store, make_labels):
    store = make_store(1)
    with pytest.raises(ValueError, match="257 rows"):
        store.write(0, make_labels(store.manifest, 257), tar_size=1, tar_sha256="0" * 64)


def test_a_tar_that_is_not_committed_is_not_readable(make_store):
    with pytest.raises(StoreError, match="not labelled yet"):
        make_store(2).read(1)


def test_a_missing_or_damaged_shard_is_named_never_read_as_zeros(make_store):
    store = make_store(2)
    file = store.path / "topk_logit/c.0.0.0.0"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        store.read(0)
    file.unlink()
    with pytest.raises(StoreError, match="missing"):
        store.read(0)


def test_every_flipped_bit_of_the_labels_is_found(make_store):
    store = make_store(2)
    rng = np.random.default_rng(0)
    for name in ("topk_logit", "tail_lse", "topk_class"):
        file = next((store.path / name).glob("c.0.*"))
        whole = file.read_bytes()
        for position in rng.integers(0, len(whole), 40):
            data = bytearray(whole)
            data[position] ^= 1 << int(rng.integers(8))
            file.write_bytes(data)
            with pytest.raises(StoreError):
                store.read(0, [name])
        file.write_bytes(whole)


def test_creating_again_finishes_what_a_kill_left(tmp_path, make_manifest):
    path = tmp_path / "s"
    whole = tree(Store.create(path, make_manifest(), ["a.tar"]).path)
    (path / "manifest.json").unlink()
    (path / "status/zarr.json").write_text("torn")
    assert not is_store(path)
    assert tree(Store.create(path, make_manifest(), ["a.tar"]).path) == whole


def test_a_different_store_in_the_way_is_refused_with_the_fields(tmp_path, make_manifest):
    Store.create(tmp_path / "s", make_manifest(), ["a.tar"])
    with pytest.raises(IdentityError, match="top_k: wanted 4, the store has 3"):
        Store.create(tmp_path / "s", make_manifest(top_k=4), ["a.tar"])


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, make_manifest):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        Store.create(tmp_path, make_manifest(), ["a.tar"])
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unwritable_place_is_one_line(tmp_path, make_manifest):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="can't be written"):
        Store.create(tmp_path / "file" / "store", make_manifest(), ["a.tar"])


def test_no_store_is_said_so(tmp_path):
    with pytest.raises(UsageError, match="wanted a label store"):
        open_store(tmp_path)


@pytest.mark.parametrize("file", ["manifest.json", "tars/0000.json", "commits/000000.json"])
def test_a_changed_digit_in_any_json_is_found(make_store, file):
    store = make_store(2)
    path = store.path / file
    path.write_bytes(path.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(StoreError, match=r"checksum|wanted"):
        open_store(store.path).read(0)


def test_a_commit_of_another_store_is_refused(tmp_path, make_store, make_manifest):
    store = make_store(2)
    other = Store.create(tmp_path / "other", make_manifest(view_seed=1), store.tars)
    commit = (store.path / "commits/000000.json").read_bytes()
    (other.path / "commits/000000.json").write_bytes(commit)
    with pytest.raises(StoreError, match="belongs to tar 0 of store"):
        other.read(0)


def test_a_newer_format_is_refused_by_its_version(make_store):
    from softlabel.shards.sealed import seal

    store = make_store(1)
    newer = {**store.manifest.to_dict(), "format_version": 2}
    (store.path / "manifest.json").write_bytes(seal(newer))
    with pytest.raises(StoreError, match="wanted format version 1, found 2"):
        open_store(store.path)


def test_leftovers_of_dead_writers_go_and_those_of_others_stay(make_store):
    store = make_store(2)
    from softlabel.shards import durable

    dead = store.path / f"status/c.1.0.{durable._HOST}-4194304-abcd.tmp"
    elsewhere = store.path / "status/c.1.0.ffffffff-1-abcd.tmp"
    alive = store.path / f"commits/000001.json.{durable._HOST}-1-abcd.tmp"
    for path in (dead, elsewhere, alive):
        path.write_bytes(b"")
    assert remove_leftovers(store) == 1
    assert not dead.exists()
    assert elsewhere.exists()
    assert alive.exists()


def test_deleting_takes_the_manifest_first(make_store, monkeypatch):
    store = make_store(2)
    seen = []
    monkeypatch.setattr("shutil.rmtree", lambda path: seen.append(is_store(store.path)))
    delete_store(store.path)
    assert seen
    assert not any(seen)


def test_the_store_id_is_the_checksum_that_the_manifest_states(make_store):
    store = make_store(1)
    content = json.loads(Path(store.path / "manifest.json").read_bytes())
    assert content["checksum"] == store.store_id
