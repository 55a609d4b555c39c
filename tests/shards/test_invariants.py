"""Breaks each numbered invariant of a store, one at a time."""

from dataclasses import replace

import numpy as np
import pytest

from softlabel.shards.invariants import problems
from softlabel.shards.sealed import seal
from softlabel.shards.store import Store, open_store


def numbers(store: Store) -> set[str]:
    return {problem.split(":")[0] for problem in problems(store)}


def rewrite(store: Store, change) -> Store:
    """Commit tar 0 anew with rows that `change` has damaged: bytes and digests agree."""
    rows = {name: value.copy() for name, value in store.read(0).items()}
    change(rows)
    (store.path / "commits/000000.json").unlink()
    store.write(0, rows, tar_size=10**6, tar_sha256="cd" * 32)
    return store


def test_a_healthy_store_has_no_problem(make_store):
    assert not list(problems(make_store(3)))


def test_a_store_with_every_class_stored_has_no_problem(make_store):
    assert not list(problems(make_store(2, top_k=10)))


def test_1_a_damaged_commit(make_store):
    store = make_store(2)
    path = store.path / "commits/000000.json"
    path.write_bytes(path.read_bytes().replace(b'"members":20', b'"members":21'))
    assert numbers(store) == {"1"}


def test_1_a_tar_listed_twice(make_store):
    store = make_store(2)
    (store.path / "tars/0000.json").write_bytes(seal({"names": ["data/t0.tar", "data/t0.tar"]}))
    assert numbers(open_store(store.path)) == {"1"}


def test_2_an_array_of_another_type(make_store):
    store = make_store(2)
    path = store.path / "status/zarr.json"
    path.write_text(path.read_text().replace('"uint8"', '"uint16"'))
    assert numbers(store) == {"2"}


def test_2_an_array_without_its_checksum_codec(make_store):
    store = make_store(2)
    path = store.path / "status/zarr.json"
    changed = path.read_text().replace("crc32c", "gzip")
    path.write_text(changed)
    assert numbers(store) == {"2"}


def test_3_a_missing_shard(make_store):
    store = make_store(2)
    (store.path / "target/c.0.0").unlink()
    assert numbers(store) == {"3"}


def test_3_other_bytes_than_were_committed(make_store):
    store = make_store(3)
    (store.path / "target/c.0.0").write_bytes((store.path / "key_hash/c.1.0").read_bytes())
    assert numbers(store) == {"3"}


def test_4_a_shard_that_does_not_decode(make_store):
    store = make_store(2)
    commit = store.commit(0)
    path = store.path / "target/c.0.0"
    damaged = path.read_bytes()[:-1] + b"x"
    path.write_bytes(damaged)
    from softlabel.shards.hashing import sha256_hex

    files = {**commit.files, "target": sha256_hex([damaged])}
    (store.path / "commits/000000.json").write_bytes(replace(commit, files=files).seal())
    assert numbers(store) == {"4"}


def test_5_counts_that_disagree(make_store):
    store = make_store(2)
    commit = replace(store.commit(0), status_counts={"1": 20})
    (store.path / "commits/000000.json").write_bytes(commit.seal())
    assert numbers(store) == {"5"}


def test_5_fewer_members_than_rows(make_store):
    store = make_store(2)
    commit = replace(store.commit(0), members=19, status_counts={"1": 19})
    (store.path / "commits/000000.json").write_bytes(commit.seal())
    assert numbers(store) == {"5"}


def test_5_a_member_left_unlabelled(make_store):
    def forget(rows):
        rows["status"][-1] = 0

    assert numbers(rewrite(make_store(2), forget)) == {"5"}


@pytest.mark.parametrize("value", [1.0, np.nan, -np.inf])
def test_6_logits_that_do_not_descend_from_zero(make_store, value):
    def change(rows):
        rows["topk_logit"][3, 1, 2] = value

    assert numbers(rewrite(make_store(2), change)) == {"6"}


@pytest.mark.parametrize("value", ["double", 10])
def test_6_classes_twice_or_too_large(make_store, value):
    def change(rows):
        row = rows["topk_class"][3, 1]
        row[2] = row[0] if value == "double" else value

    assert numbers(rewrite(make_store(2), change)) == {"6"}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 9.0])
def test_7_a_tail_that_cannot_be(make_store, value):
    def change(rows):
        rows["tail_lse"][3, 1, 0] = value

    assert numbers(rewrite(make_store(2), change)) == {"7"}


def test_7_a_tail_where_nothing_is_left_out(make_store):
    def change(rows):
        rows["tail_lse"][3] = 0.0

    assert numbers(rewrite(make_store(2, top_k=10), change)) == {"7"}


def test_8_labels_in_a_row_that_is_not_ok(make_store):
    def change(rows):
        rows["max_logit"][-1] = 1.0

    assert numbers(rewrite(make_store(2), change)) == {"8"}


def test_9_images_outside_their_tar(make_store):
    def change(rows):
        rows["offset"][-1] = 10**6

    assert numbers(rewrite(make_store(2), change)) == {"9"}


def test_9_images_that_run_backwards(make_store):
    def change(rows):
        rows["offset"][[4, 5]] = rows["offset"][[5, 4]]

    assert numbers(rewrite(make_store(2), change)) == {"9"}


def test_10_a_file_that_belongs_to_nothing(make_store):
    store = make_store(2)
    (store.path / "status/c.9.0").write_bytes(b"")
    assert numbers(store) == {"10"}
