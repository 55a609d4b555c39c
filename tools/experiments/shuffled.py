"""A control: a store in which every image has another image's label."""

from pathlib import Path

import numpy as np

from softlabel.shards.errors import UsageError
from softlabel.shards.status import Status
from softlabel.shards.store import Store, delete_store, is_store, open_store

_LABELS = ("topk_logit", "topk_class", "tail_lse", "max_logit")


def write_shuffled(source: Path, target: Path, *, seed: int) -> int:
    """Copy a store with its labels permuted among all images, over all tars; how many there are.

    The labels stay the teacher's own, as often and as sure, so a student of them learns all that
    is not about the image: how often each class is named, and with what confidence.

    Raises:
        UsageError: an image of the source has no label.
        StoreError: the source is not complete, or damaged.
    """
    store = open_store(source)
    tars = [store.read(tar) for tar in range(len(store.tars))]
    if any((rows["status"] != Status.OK).any() for rows in tars):
        raise UsageError(f"{source}: wanted a label for every image, some have none")
    counts = [len(rows["status"]) for rows in tars]
    order = np.random.default_rng(seed).permutation(sum(counts))
    moved = {name: np.concatenate([rows[name] for rows in tars])[order] for name in _LABELS}
    if is_store(target):  # of a run that was killed
        delete_store(target)
    copy = Store.create(target, store.manifest, store.tars)
    ends = np.cumsum(counts)
    for tar, (rows, end) in enumerate(zip(tars, ends.tolist(), strict=True)):
        commit = store.commit(tar)
        assert commit is not None
        own = slice(end - len(rows["status"]), end)
        copy.write(
            tar,
            {**rows, **{name: values[own] for name, values in moved.items()}},
            tar_size=commit.tar_size,
            tar_sha256=commit.tar_sha256,
        )
    return sum(counts)
