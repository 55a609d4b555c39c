"""The rows of one tar while they come in: members in order, teacher outputs for the good ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.schema import SMALLEST_LOGIT, Manifest
from softlabel.shards.status import Status


@dataclass(frozen=True, slots=True)
class MemberRow:
    """What a row says about its member, apart from the teacher's words."""

    key: str
    key_hash: int
    image_hash: int
    offset: int
    size: int
    target: int
    status: Status
    reason: str = ""


class TarRows:
    """Collects one tar; `finish` gives every array of the store, one row a member."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.members: list[MemberRow] = []
        self._outputs: list[dict[str, NDArray[Any]]] = []

    def add_outputs(self, outputs: dict[str, NDArray[Any]]) -> None:
        """Teacher outputs for the next images: the views of each good member, in order."""
        self._outputs.append(outputs)

    def finish(self) -> dict[str, NDArray[Any]]:
        """The arrays of the schema, [n, ...]. A member with a non-finite view is not ok."""
        rows = self._empty()
        good = np.flatnonzero([member.status == Status.OK for member in self.members])
        if len(good):
            labels, finite = self._labels(len(good))
            rows["status"][good[~finite]] = Status.NON_FINITE
            for name, values in labels.items():
                rows[name][good[finite]] = values[finite]
        return rows

    def _empty(self) -> dict[str, NDArray[Any]]:
        manifest = self._manifest
        rows: dict[str, NDArray[Any]] = {
            spec.name: np.zeros((len(self.members), *manifest.row_shape(spec)), spec.dtype)
            for spec in manifest.arrays
        }
        for name in ("status", "key_hash", "image_hash", "offset", "size", "target"):
            rows[name][:] = _column(self.members, name, rows[name].dtype)
        return rows

    def _labels(self, num_good: int) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_]]:
        views = self._manifest.views
        whole = {
            name: np.concatenate([part[name] for part in self._outputs])
            for name in self._outputs[0]
        }
        whole = {
            name: value.reshape(num_good, views, *value.shape[1:]) for name, value in whole.items()
        }
        finite = np.asarray(whole.pop("finite").all(axis=1), np.bool_)
        wanted = {spec.name: spec.dtype for spec in self._manifest.arrays}
        whole["topk_logit"] = np.maximum(whole["topk_logit"], SMALLEST_LOGIT)
        with np.errstate(invalid="ignore", over="ignore"):  # rows that are not finite go unused
            labels = {name: value.astype(wanted[name]) for name, value in whole.items()}
        if "embedding" in labels:
            finite &= np.isfinite(labels["embedding"]).all(axis=(1, 2))
        return labels, finite


def _column(members: Sequence[MemberRow], name: str, dtype: Any) -> NDArray[Any]:
    return np.array([getattr(member, name) for member in members], dtype)
