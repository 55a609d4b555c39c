"""`--batch-size auto`: the fastest batch among those whose labels are the same to the bit."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabel.labeler.session import TeacherSession, bit_equal

CANDIDATES = (1, 8, 16, 32, 64)
REFERENCE = 8
_SECONDS_EACH = 0.25


@dataclass(frozen=True, kw_only=True)
class BatchChoice:
    """The batch size taken, and what was measured on the way."""

    batch_size: int
    images_per_s: dict[int, float]
    """Teacher-only speed of each candidate that was measured."""
    ruled_out: tuple[int, ...]
    """Candidates whose outputs differ from those of batch 8 in some bit."""


def choose_batch(
    session: TeacherSession, images: NDArray[np.uint8], candidates: Sequence[int] = CANDIDATES
) -> BatchChoice:
    """Measure each candidate on real images [N, H, W, 3], as few as there are.

    Without an image the reference size is taken unmeasured.
    """
    if not len(images):
        return BatchChoice(batch_size=REFERENCE, images_per_s={}, ruled_out=())
    wanted = session.run_padded(images, batch_size=REFERENCE)
    speeds: dict[int, float] = {}
    ruled_out = []
    for size in candidates:
        found = session.run_padded(images, batch_size=size)
        if not bit_equal(wanted, found, list(wanted)):
            ruled_out.append(size)
            continue
        speeds[size] = _speed(session, np.resize(images, (size, *images.shape[1:])))
    return BatchChoice(
        batch_size=max(speeds, key=lambda size: speeds[size]),
        images_per_s={size: round(speed, 1) for size, speed in speeds.items()},
        ruled_out=tuple(ruled_out),
    )


def _speed(session: TeacherSession, batch: NDArray[np.uint8]) -> float:
    times: list[float] = []
    end = time.perf_counter() + _SECONDS_EACH
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(batch)
        times.append(time.perf_counter() - start)
    return len(batch) / float(np.median(times))
