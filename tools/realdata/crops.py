"""Random crops of the two photographs that come with scikit-learn: no download is needed."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MOST = 8  # a crop's side in the photograph, at most, in sides of the image made of it


def patches(side: int, count: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """[count, side, side, 3] crops of any size from `side` pixels up, shrunk to `side`."""
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(seed)
    images = np.empty((count, side, side, 3), np.uint8)
    for row in range(count):
        photograph = photographs[rng.integers(len(photographs))]
        largest = min(*photograph.size, _MOST * side)
        length = int(side * (largest / side) ** rng.random())
        left, top = (int(rng.integers(size - length + 1)) for size in photograph.size)
        box = (left, top, left + length, top + length)
        crop = photograph.resize((side, side), Image.Resampling.BICUBIC, box=box)
        images[row] = np.asarray(crop)
    return images
