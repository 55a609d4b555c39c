"""What one label says, as numbers: p1, entropy, energy, and the tail at each stored temperature."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.schema import Manifest
from softlabel.shards.statistics import entropies, probabilities
from softlabel.shards.status import Status

Floats = NDArray[np.float64]

NEEDED = (
    "status",
    "topk_logit",
    "topk_class",
    "tail_lse",
    "max_logit",
    "key_hash",
    "image_hash",
    "target",
)
"""The arrays of the store that statistics are made of: all that is small."""


def measures(manifest: Manifest) -> tuple[str, ...]:
    """Names of the columns of `TarValues.values`: M of them."""
    return ("p1", "entropy", "energy", *(f"tail at {t:g}" for t in manifest.temperatures))


def base_temperature(manifest: Manifest) -> float:
    """That of p1, entropy and energy: 1, or the smallest stored one where that is larger."""
    return max(1.0, min(manifest.temperatures))


@dataclass(frozen=True, kw_only=True, slots=True)
class TarValues:
    """The rows of one tar: n members, N of them labelled, V views each."""

    status: NDArray[np.uint8]
    """[n]"""
    place: NDArray[np.int64]
    """[N] which members are labelled."""
    values: Floats
    """[N, V, M], columns as `measures` names them."""
    head: Mapping[float, Floats]
    """[N, V, K] probabilities of the stored classes, by temperature: stored, and the base one."""
    tail: Mapping[float, Floats]
    """[N, V] probability of all other classes together, likewise."""
    first_class: NDArray[np.int64]
    """[N] the class that the first view was called."""
    key_hash: NDArray[np.uint64]
    image_hash: NDArray[np.uint64]
    has_target: NDArray[np.bool_]
    """[n]"""


def tar_values(rows: Mapping[str, NDArray[Any]], manifest: Manifest) -> TarValues:
    """Numbers of a tar's rows, those of `NEEDED`.

    Entropy takes the tail as spread evenly over the classes not stored, hence is an upper bound.
    Energy is -t logsumexp(z / t) of the absolute logits (Liu et al. 2020, "Energy-based
    out-of-distribution detection") at `base_temperature`; lower is surer.
    """
    place = np.flatnonzero(rows["status"] == Status.OK)
    num_not_stored = manifest.num_classes - manifest.top_k
    base = base_temperature(manifest)
    split = {
        t: probabilities(
            rows["topk_logit"][place],
            rows["tail_lse"][place],
            temperatures=manifest.temperatures,
            temperature=t,
            num_not_stored=num_not_stored,
        )
        for t in dict.fromkeys((*manifest.temperatures, base))
    }
    head, tail = split[base]
    columns = [
        head[..., 0],
        entropies(head, tail, num_not_stored=num_not_stored),
        # The first class has probability exp(0) / sum, which gives the sum without its tail again.
        base * np.log(head[..., 0]) - rows["max_logit"][place].astype(np.float64),
        *(split[t][1] for t in manifest.temperatures),
    ]
    return TarValues(
        status=rows["status"],
        place=place,
        values=np.stack(columns, axis=-1),
        head={t: head for t, (head, _) in split.items()},
        tail={t: tail for t, (_, tail) in split.items()},
        first_class=rows["topk_class"][place][:, 0, 0].astype(np.int64),
        key_hash=rows["key_hash"][place],
        image_hash=rows["image_hash"][place],
        has_target=rows["target"] >= 0,
    )
