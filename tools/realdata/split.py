"""Images with their classes: what every labelled set here is made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Split:
    """One part of a set: a row is an image and its class."""

    images: NDArray[np.uint8]
    """[N, H, W, 3] RGB."""

    targets: NDArray[np.int64]
    """[N] in [0, 10)."""
