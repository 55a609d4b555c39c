"""Which images a costly measurement is made on: a sample that is always the same."""

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.evaluate.answers import Images


def choose(key_hash: NDArray[np.uint64], count: int) -> NDArray[np.int64]:
    """At most `count` images, ascending: those whose hashes [N] are smallest, equal ones in order.

    The hash has nothing to do with what is in a picture, so that is a sample, and adding images to
    a collection changes it least.
    """
    return np.sort(np.argsort(key_hash, kind="stable")[:count])


def members_of(images: Images, chosen: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """For each tar that has some of the chosen images, their members, as `PictureReader` wants."""
    tars, member = images.tar[chosen], images.member[chosen].astype(np.int64)
    return {int(tar): member[tars == tar] for tar in np.unique(tars)}
