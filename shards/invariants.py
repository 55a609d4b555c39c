"""What holds of every healthy store, checked one by one.

 1. manifest.json, tars/*.json and commits/*.json are sealed JSON of this format; every commit
    carries the store id and its own tar's ordinal; the list of tars has no gap and no name twice.
 2. each array's zarr.json describes exactly the schema's array; a head fits C and D.
 3. each commit's shard file exists in every array and has the sha256 that the commit states.
 4. a shard decodes, its checksums included.
 5. rows below `members` have a status of 1 to 6, counted as in the commit; the rest have 0.
 6. in a row with status 1, logits are finite, descending, begin with 0 and reach no lower than
    -65504; classes are below C and unique.
 7. in a row with status 1, tail_lse is -inf where K = C, and elsewhere finite and at most
    log(C - K) + d_K / t, since no class left out has a larger logit than the last one kept.
 8. a row with another status holds zeros in every array of labels.
 9. image ranges follow one another and end inside the tar.
10. nothing else lies in the store.

`tests/shards/test_invariants.py` breaks each.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.arrays import shard_file
from softlabel.shards.commits import Commit, commit_file
from softlabel.shards.errors import StoreError
from softlabel.shards.hashing import sha256_hex
from softlabel.shards.head import NAMES as HEAD
from softlabel.shards.schema import SMALLEST_LOGIT
from softlabel.shards.status import Status
from softlabel.shards.store import MANIFEST, Store

# log-tails are float32 sums of thousands of terms, and the bound itself uses a float16 logit.
_TAIL_SLACK = 0.01
_LABELS = ("topk_logit", "topk_class", "tail_lse", "max_logit", "embedding")


def problems(store: Store) -> Iterator[str]:
    """Every broken invariant of an open store, one line each, with its number and the tar."""
    yield from _names_and_metadata(store)
    for tar in range(len(store.tars)):
        try:
            commit = store.commit(tar)
        except StoreError as error:
            yield f"1: {error}"
            continue
        if commit is not None:
            yield from tar_problems(store, tar, commit)
    yield from _strangers(store)


def _names_and_metadata(store: Store) -> Iterator[str]:
    if len(set(store.tars)) < len(store.tars):
        yield "1: tars/: a tar is listed twice"
    for spec in store.manifest.arrays:
        file = store.path / spec.name / "zarr.json"
        if not file.is_file() or not store.codec(spec.name).metadata_matches(file.read_bytes()):
            yield f"2: {file}: missing, or not the array of format version 1"
    try:
        store.head()
    except StoreError as error:
        yield f"2: {error}"


def tar_problems(store: Store, tar: int, commit: Commit) -> Iterator[str]:
    """The broken invariants 3 to 9 of one committed tar."""
    rows: dict[str, NDArray[Any]] = {}
    for spec in store.manifest.arrays:
        file = shard_file(spec, tar)
        path = store.path / file
        if not path.is_file():
            yield f"3: {file}: missing"
        elif sha256_hex([path.read_bytes()]) != commit.files.get(spec.name):
            yield f"3: {file}: not the bytes that were committed"
        else:
            try:
                rows[spec.name] = store.read_shard(tar, spec.name)
            except StoreError as error:
                yield f"4: {error}"
    if len(rows) == len(store.manifest.arrays):
        for number, problem in _row_problems(store, rows, commit):
            yield f"{number}: tar {tar} ({store.tars[tar]}): {problem}"


def _row_problems(
    store: Store, rows: dict[str, NDArray[Any]], commit: Commit
) -> Iterator[tuple[int, str]]:
    status = rows["status"]
    members = status[: commit.members]
    counts = {str(s): int((members == s).sum()) for s in np.unique(members)}
    if counts != dict(commit.status_counts) or (len(members) and not 1 <= members.min() <= 6):
        yield 5, f"statuses {counts}, the commit says {dict(commit.status_counts)}"
    if status[commit.members :].any():
        yield 5, "a row after the last member has a status"
    ok = status == Status.OK
    for name in _LABELS:
        if name in rows and rows[name][~ok].any():
            yield 8, f"{name} is set in a row that is not ok"
    yield from _label_problems(store, {name: rows[name][ok] for name in rows})
    yield from _range_problems(rows, commit)


def _label_problems(store: Store, rows: dict[str, NDArray[Any]]) -> Iterator[tuple[int, str]]:
    manifest = store.manifest
    logit = rows["topk_logit"].astype(np.float32)
    if not (
        np.isfinite(logit).all()
        and (logit[..., 0] == 0).all()
        and (np.diff(logit, axis=-1) <= 0).all()
        and (logit >= SMALLEST_LOGIT).all()
    ):
        yield 6, "logits are not finite and descending from 0"
        return
    classes = np.sort(rows["topk_class"], axis=-1)
    if (classes[..., -1] >= manifest.num_classes).any() or (
        (classes[..., 1:] == classes[..., :-1]).any()
    ):
        yield 6, f"classes are not unique and below {manifest.num_classes}"
    left_out = manifest.num_classes - manifest.top_k
    tail = rows["tail_lse"]
    if left_out == 0:
        if not np.isneginf(tail).all():
            yield 7, "a tail is not -inf though every class is stored"
        return
    bound = np.log(left_out) + logit[..., -1:] / np.array(manifest.temperatures, np.float32)
    # Half a unit in the last place of the stored logit can push the bound down.
    slack = _TAIL_SLACK + np.abs(bound) * 2.0**-10
    if not (np.isfinite(tail).all() and (tail <= bound + slack).all()):
        yield 7, "a tail is not finite, or larger than the last stored logit allows"


def _range_problems(rows: dict[str, NDArray[Any]], commit: Commit) -> Iterator[tuple[int, str]]:
    has_image = rows["offset"] > 0
    start = rows["offset"][has_image].astype(np.int64)
    end = start + rows["size"][has_image]
    if (start[1:] < end[:-1]).any() or (end > commit.tar_size).any():
        yield 9, "image ranges overlap, run backwards or leave the tar"


def _strangers(store: Store) -> Iterator[str]:
    arrays = {spec.name: spec for spec in store.manifest.arrays}
    listed = {
        MANIFEST,
        "zarr.json",
        *(f"{name}/zarr.json" for name in arrays),
        *(f"{name}/zarr.json" for name in HEAD),
        *(f"{name}/c.0{end}" for name, end in zip(HEAD, (".0", ""), strict=True)),
        *(f"tars/{path.name}" for path in (store.path / "tars").glob("*.json")),
    }
    for tar in range(len(store.tars)):
        listed |= {commit_file(tar), *(shard_file(spec, tar) for spec in arrays.values())}
    for path in sorted(store.path.rglob("*")):
        name = path.relative_to(store.path)
        if path.is_file() and name.parts[0] not in {"runs", "leases"} and str(name) not in listed:
            yield f"10: {name}: not a file of a store"


def tree(path: Path) -> dict[str, bytes]:
    """Every file of a store that the byte promise covers: all but runs/ and leases/."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.relative_to(path).parts[0] not in {"runs", "leases"}
    }
