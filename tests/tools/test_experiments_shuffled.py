"""The shuffled store: every image keeps its place and gets another image's label, whole."""

from dataclasses import replace

import numpy as np
import pytest

from softlabel.shards.errors import UsageError
from softlabel.shards.invariants import problems
from softlabel.shards.schema import Manifest
from softlabel.shards.status import Status
from softlabel.shards.store import Store, open_store
from softlabel.tools.experiments.shuffled import write_shuffled

MANIFEST = Manifest(
    teacher_sha256="0" * 64,
    teacher_output="logits",
    teacher_output_kind="logits",
    recipe={},
    decoder="pillow",
    max_image_pixels=1000,
    image_ext=("png",),
    provider="cpu",
    views=1,
    view_recipe="center",
    view_seed=0,
    top_k=3,
    temperatures=(1.0, 2.0),
    num_classes=5,
    rows_per_tar=256,
)
COUNTS = (40, 25)


def rows(count: int, *, first: int) -> dict[str, np.ndarray]:
    """Every label is known by its max_logit, every image by its key."""
    number = np.arange(first, first + count)
    order = np.argsort(np.random.default_rng(first).random((count, 5)), axis=1)
    logits = -np.sort(np.random.default_rng(first).random((count, 1, 3)), axis=2)
    logits[..., 0] = 0
    return {
        "topk_logit": logits.astype(np.float16),
        "topk_class": order[:, None, :3].astype(np.uint16),
        "tail_lse": np.zeros((count, 1, 2), np.float32) - number[:, None, None].astype(np.float32),
        "max_logit": number[:, None].astype(np.float32),
        "status": np.full(count, Status.OK, np.uint8),
        "key_hash": number.astype(np.uint64),
        "image_hash": number.astype(np.uint64) + np.uint64(7),
        "offset": number.astype(np.uint64) * np.uint64(512),
        "size": np.full(count, 9, np.uint32),
        "target": (number % 5).astype(np.int32),
    }


@pytest.fixture
def source(tmp_path):
    store = Store.create(tmp_path / "source", MANIFEST, ["a-0000.tar", "a-0001.tar"])
    first = 0
    for tar, count in enumerate(COUNTS):
        store.write(tar, rows(count, first=first), tar_size=10 + tar, tar_sha256=f"{tar}" * 64)
        first += count
    return store


def all_rows(store: Store) -> dict[str, np.ndarray]:
    tars = [store.read(tar) for tar in range(len(store.tars))]
    return {name: np.concatenate([tar[name] for tar in tars]) for name in tars[0]}


def test_labels_move_whole_and_images_stay(source, tmp_path):
    assert write_shuffled(source.path, tmp_path / "copy", seed=3) == sum(COUNTS)
    before, after = all_rows(source), all_rows(open_store(tmp_path / "copy"))
    for name in ("status", "key_hash", "image_hash", "offset", "size", "target"):
        assert np.array_equal(before[name], after[name]), name
    order = after["max_logit"][:, 0].astype(int)  # whose label each image has now
    assert sorted(order) == list(range(sum(COUNTS)))
    for name in ("topk_logit", "topk_class", "tail_lse", "max_logit"):
        assert np.array_equal(before[name][order], after[name]), name


def test_hardly_an_image_keeps_its_label_and_they_cross_tars(source, tmp_path):
    write_shuffled(source.path, tmp_path / "copy", seed=3)
    order = all_rows(open_store(tmp_path / "copy"))["max_logit"][:, 0].astype(int)
    assert (order == np.arange(len(order))).mean() < 0.1
    assert ((order < COUNTS[0]) != (np.arange(len(order)) < COUNTS[0])).any()


def test_the_copy_belongs_to_the_same_tars_and_keeps_the_stores_promises(source, tmp_path):
    write_shuffled(source.path, tmp_path / "copy", seed=3)
    copy = open_store(tmp_path / "copy")
    for tar in range(2):
        one, other = source.commit(tar), copy.commit(tar)
        assert (one.tar_size, one.tar_sha256) == (other.tar_size, other.tar_sha256)
    assert list(problems(copy)) == list(problems(source))


def test_a_killed_copy_is_begun_again_and_equal_seeds_are_equal(source, tmp_path):
    for name in ("copy", "again"):
        write_shuffled(source.path, tmp_path / name, seed=3)
    Store.create(tmp_path / "killed", replace(MANIFEST), source.tars)
    write_shuffled(source.path, tmp_path / "killed", seed=3)
    wanted = all_rows(open_store(tmp_path / "copy"))
    for name in ("again", "killed"):
        found = all_rows(open_store(tmp_path / name))
        assert all(np.array_equal(found[array], wanted[array]) for array in wanted)


def test_images_without_labels_are_refused(tmp_path):
    store = Store.create(tmp_path / "source", MANIFEST, ["a.tar"])
    bad = rows(4, first=0)
    bad["status"][1] = Status.UNDECODABLE
    store.write(0, bad, tar_size=1, tar_sha256="0" * 64)
    with pytest.raises(UsageError, match="every image"):
        write_shuffled(store.path, tmp_path / "copy", seed=0)
