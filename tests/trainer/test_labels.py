"""What is read from the store for training."""

import numpy as np
import pytest

from softlabel.shards.errors import IdentityError, StoreError
from softlabel.shards.status import Status
from softlabel.shards.tails import tail_at
from softlabel.trainer.labels import LabelledRows, LabelReader


def reader(store, **changes):
    options = {"temperature": 1.0, "with_tail": True, "with_target": False, "capacity": 4}
    return LabelReader(store, **{**options, **changes})


def test_rows_that_are_not_ok_are_left_out(make_collection, tmp_path):
    bad = {0: Status.UNDECODABLE, 5: Status.NO_IMAGE, 19: Status.NON_FINITE}
    store = make_collection(tmp_path, 1, 20, bad=bad).store
    rows = reader(store).rows(0, epoch=0)
    assert rows.member.tolist() == [m for m in range(20) if m not in bad]
    stored = store.read(0)
    assert (rows.image_hash == stored["image_hash"][rows.member]).all()
    assert (rows.topk_class[:, 0] == stored["topk_class"][rows.member, 0, 0]).all()


def test_each_epoch_has_the_labels_of_its_own_view(make_collection, tmp_path):
    store = make_collection(tmp_path, 1, 20, views=3, view_recipe="rrc-flip").store
    stored = store.read(0)
    labels = reader(store)
    seen = []
    for epoch in range(4):
        rows = labels.rows(0, epoch=epoch)
        seen.append(rows.view)
        for name in ("topk_logit", "topk_class"):
            assert (getattr(rows, name) == stored[name][np.arange(20), rows.view]).all()
        assert (rows.tail_lse == stored["tail_lse"][np.arange(20), rows.view, 0]).all()
    assert (np.sort(seen[:3], axis=0) == np.arange(3)[:, None]).all()
    assert (seen[3] == seen[0]).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0, 6.0])
def test_tails_are_those_of_the_training_temperature(collection, temperature):
    store = collection.store
    rows = reader(store, temperature=temperature).rows(1, epoch=0)
    wanted = tail_at(
        store.read(1)["tail_lse"][:, 0],
        temperatures=(1.0, 2.0, 4.0),
        temperature=temperature,
        num_not_stored=6,
    )
    assert (rows.tail_lse == wanted).all()


def test_a_loss_without_tails_reads_none(collection):
    assert np.isneginf(reader(collection.store, with_tail=False).rows(0, epoch=0).tail_lse).all()


def test_only_as_many_tars_as_allowed_are_kept(make_collection, tmp_path, monkeypatch):
    store = make_collection(tmp_path, 4, 2).store
    read = []
    real = type(store).read
    monkeypatch.setattr(
        type(store), "read", lambda self, tar, names: read.append(tar) or real(self, tar, names)
    )
    labels = reader(store, capacity=2)
    for tar in (0, 1, 0, 2, 0, 1):
        labels.rows(tar, epoch=0)
    assert read == [0, 1, 2, 1]


def test_rows_that_the_commit_does_not_count_are_damage(make_collection, tmp_path, monkeypatch):
    store = make_collection(tmp_path, 1, 4).store
    real = type(store).read

    def read(self, tar, names):
        arrays = real(self, tar, names)
        return {**arrays, "status": np.where(np.arange(4) == 2, 3, arrays["status"])}

    monkeypatch.setattr(type(store), "read", read)
    with pytest.raises(StoreError, match="the commit says 4 rows are ok, found 3"):
        reader(store).rows(0, epoch=0)


def test_a_target_that_is_no_class_of_the_teacher_is_refused_where_targets_count(
    make_collection, tmp_path, monkeypatch
):
    store = make_collection(tmp_path, 1, 4).store
    real = type(store).read

    def read(self, tar, names):
        return {**real(self, tar, names), "target": np.array([1, 2, 10, -1])}

    monkeypatch.setattr(type(store), "read", read)
    reader(store).rows(0, epoch=0)
    with pytest.raises(IdentityError, match=r"t00\.tar: member 2 has class 10"):
        reader(store, with_target=True).rows(0, epoch=0)


def test_joined_rows_are_the_parts_in_a_row(collection):
    labels = reader(collection.store)
    a, b = labels.rows(0, epoch=0), labels.rows(1, epoch=0)
    both = LabelledRows.joined([a.take(slice(0, 3)), b.take(np.array([7, 2]))])
    assert both.tar.tolist() == [0, 0, 0, 1, 1]
    assert both.member.tolist() == [0, 1, 2, 7, 2]
    assert (both.topk_logit[3] == b.topk_logit[7]).all()
