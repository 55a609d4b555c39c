"""What the store says of the images of one tar, ready to be joined to their pixels."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.errors import IdentityError, StoreError
from softlabel.shards.status import Status
from softlabel.shards.store import Store
from softlabel.shards.tails import tail_at
from softlabel.trainer.order import view_numbers

_PLACE = ("status", "key_hash", "image_hash", "offset", "size", "target")
_LABELS = ("topk_logit", "topk_class", "tail_lse")


Sampling = Callable[[int, int], tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Of a tar's ordinal and an epoch: how often each ok row comes [n], and its weight in the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledRows:
    """Rows with status ok, and their labels for the view of one epoch. All arrays are [n, ...]."""

    tar: NDArray[np.int32]
    """The tar's ordinal in the store."""
    member: NDArray[np.int32]
    key_hash: NDArray[np.uint64]
    image_hash: NDArray[np.uint64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    target: NDArray[np.int64]
    """-1 without one."""
    view: NDArray[np.int64]
    topk_logit: NDArray[np.float16]
    """[n, K]"""
    topk_class: NDArray[np.int32]
    """[n, K]"""
    tail_lse: NDArray[np.float32]
    """[n] at the training temperature; -inf where the loss does without."""
    weight: NDArray[np.float32]
    """[n] in the loss"""
    copy: NDArray[np.int64]
    """[n] which of an image's appearances in the epoch, from 0"""

    def __len__(self) -> int:
        return len(self.member)

    def take(self, index: "slice | NDArray[np.int64]") -> "LabelledRows":
        """Some of the rows."""
        return LabelledRows(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def joined(cls, parts: "list[LabelledRows]") -> "LabelledRows":
        """Rows of several tars, one after the other."""
        return cls(
            **{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)}
        )


class LabelReader:
    """Reads labels tar by tar and keeps those used last; for one thread."""

    def __init__(
        self,
        store: Store,
        *,
        temperature: float,
        with_tail: bool,
        with_target: bool,
        capacity: int,
        sampling: Sampling | None = None,
    ) -> None:
        self._store = store
        self._temperature = temperature
        self._with_tail = with_tail
        self._with_target = with_target
        self._capacity = capacity
        self._sampling = sampling
        self._kept: OrderedDict[tuple[int, int], LabelledRows] = OrderedDict()

    def rows(self, tar: int, *, epoch: int) -> LabelledRows:
        """The ok rows of a committed tar, with the view that an epoch shows of each.

        In a weighted stream a row comes as often as the epoch draws it, each time with the next of
        its views.

        Raises:
            StoreError: the store is damaged.
            IdentityError: a target that is no class of the teacher, where targets are used.
        """
        key = (tar, epoch if self._sampling else epoch % self._store.manifest.views)
        if key not in self._kept:
            self._kept[key] = self._read(*key)
            if len(self._kept) > self._capacity:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _read(self, tar: int, epoch: int) -> LabelledRows:
        manifest = self._store.manifest
        arrays = self._store.read(tar, (*_PLACE, *_LABELS))
        member = np.flatnonzero(arrays["status"] == Status.OK)
        self._check_count(tar, len(member))
        weight = np.ones(len(member), np.float32)
        copy = np.zeros(len(member), np.int64)
        if self._sampling:
            times, factor = self._sampling(tar, epoch)
            member, weight = np.repeat(member, times), np.repeat(factor, times)
            copy = np.arange(len(member)) - np.repeat(np.cumsum(times) - times, times)
        view = view_numbers(arrays["key_hash"][member], epoch=epoch + copy, views=manifest.views)
        if self._with_target:
            self._check_targets(tar, arrays["target"])
        return LabelledRows(
            tar=np.full(len(member), tar, np.int32),
            member=member.astype(np.int32),
            key_hash=arrays["key_hash"][member],
            image_hash=arrays["image_hash"][member],
            offset=arrays["offset"][member].astype(np.int64),
            size=arrays["size"][member].astype(np.int64),
            target=arrays["target"][member].astype(np.int64),
            view=view,
            topk_logit=arrays["topk_logit"][member, view],
            topk_class=arrays["topk_class"][member, view].astype(np.int32),
            tail_lse=self._tails(arrays["tail_lse"][member, view]),
            weight=weight,
            copy=copy,
        )

    def _tails(self, tail_lse: NDArray[Any]) -> NDArray[np.float32]:
        if not self._with_tail:
            return np.full(len(tail_lse), -np.inf, np.float32)
        manifest = self._store.manifest
        return tail_at(
            tail_lse,
            temperatures=manifest.temperatures,
            temperature=self._temperature,
            num_not_stored=manifest.num_classes - manifest.top_k,
        )

    def _check_count(self, tar: int, found: int) -> None:
        commit = self._store.commit(tar)
        wanted = commit.status_counts.get(str(int(Status.OK)), 0) if commit else 0
        if found != wanted:
            raise StoreError(
                f"{self._store.path}: tar {tar} ({self._store.tars[tar]}): the commit says "
                f"{wanted} rows are ok, found {found}; run kd-store verify {self._store.path}"
            )

    def _check_targets(self, tar: int, target: NDArray[Any]) -> None:
        if len(target) and target.max() >= self._store.manifest.num_classes:
            raise IdentityError(
                f"{self._store.tars[tar]}: member {int(target.argmax())} has class "
                f"{int(target.max())}, the teacher has {self._store.manifest.num_classes} classes; "
                "they count differently: use --task-loss-weight 0"
            )
