import hashlib
import io
import json
import sys
import tarfile
import zipfile
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from softlabel.shards.errors import IdentityError, MachineError
from softlabel.tools.realdata import cifar10
from softlabel.tools.realdata.cifar10 import Cifar10, from_sprites, from_torchvision, verify
from softlabel.tools.realdata.imagenet import known_cifar10, photos, write_photo_tar
from softlabel.tools.realdata.split import Split


def image_bytes(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def pixels():
    return np.random.default_rng(3).integers(0, 256, (6, 4, 32, 32, 3), np.uint8)


def add(tar, name, data):
    member = tarfile.TarInfo(f"package/{name}")
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def test_sprites_become_images_in_canonical_order(pixels, tmp_path):
    with tarfile.open(tmp_path / "sprites.tgz", "w:gz") as tar:
        names = [f"data_batch_{number}.png" for number in range(1, 6)] + ["test_batch.png"]
        # The archive's own order must not matter.
        for name, batch in reversed(list(zip(names, pixels, strict=True))):
            add(tar, name, image_bytes(batch.reshape(4, 1024, 3)))
        add(tar, "train_lables.json", json.dumps(list(range(20))).encode())
        add(tar, "test_lables.json", b"[3, 1, 2, 0]")
    read = from_sprites(tmp_path / "sprites.tgz")
    np.testing.assert_array_equal(read.train.images, pixels[:5].reshape(20, 32, 32, 3))
    np.testing.assert_array_equal(read.test.images, pixels[5])
    assert read.train.targets.tolist() == list(range(20))
    assert read.test.targets.tolist() == [3, 1, 2, 0]


class FakeTorchvision:
    """Answers like torchvision.datasets.CIFAR10, with 20 and 4 images."""

    def __init__(self, root, *, train, download):
        assert download
        self.data = np.full((20 if train else 4, 32, 32, 3), train, np.uint8)
        self.targets = [int(train)] * len(self.data)


@pytest.fixture
def torchvision(monkeypatch):
    module = SimpleNamespace(CIFAR10=FakeTorchvision)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    return module


@pytest.mark.usefixtures("torchvision")
def test_where_npm_is_missing_torchvision_downloads_and_it_is_said(cache, tmp_path, monkeypatch):
    checked, said = [], []
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cifar10, "verify", checked.append)
    read = cifar10.load(say=said.append)
    assert read.train.images.shape == (20, 32, 32, 3)
    assert read.test.targets.tolist() == [0, 0, 0, 0]
    assert checked == [read]
    assert said == [
        "downloading CIFAR-10 with torchvision (170 MB), because the npm client was not found"
    ]
    assert cache.is_dir()


@pytest.mark.parametrize(
    "error", [URLError("no route"), RuntimeError("File not found or corrupted")]
)
def test_a_failed_torchvision_download_is_one_line_with_the_way_out(tmp_path, torchvision, error):
    def fail(*arguments, **options):
        raise error

    torchvision.CIFAR10 = fail
    with pytest.raises(MachineError, match=r"apt-get install npm") as caught:
        from_torchvision(tmp_path)
    assert "\n" not in str(caught.value)


def blank_cifar10(value=0, skew=0):
    def split(per_class):
        targets = np.repeat(np.arange(10), per_class)
        targets[:skew] = 9
        images = np.broadcast_to(np.uint8(value), (10 * per_class, 32, 32, 3))
        return Split(images=images, targets=targets)

    return Cifar10(train=split(5_000), test=split(1_000))


def test_images_that_are_not_cifar10_are_refused():
    with pytest.raises(IdentityError, match="wanted channel means"):
        verify(blank_cifar10())
    with pytest.raises(IdentityError, match="wanted 5000 images of each of 10 classes"):
        verify(blank_cifar10(skew=1))


@pytest.fixture
def wheel(tmp_path, pixels):
    path = tmp_path / "samples.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for number in (1, 0):
            png, jpeg = image_bytes(pixels[0, number]), image_bytes(pixels[1, number], "JPEG")
            archive.writestr(f"foolbox/data/cifar10_{number:02d}_{number + 3}.png", png)
            archive.writestr(f"foolbox/data/imagenet_{number:02d}_{number + 900}.jpg", jpeg)
        archive.writestr("foolbox/data/cifar100_00_9.png", b"another set")
    return path


def test_known_cifar10_images_come_with_the_label_in_their_name(wheel, pixels):
    known = known_cifar10(wheel)
    np.testing.assert_array_equal(known.images, pixels[0, :2])
    assert known.targets.tolist() == [3, 4]


def test_the_photo_tar_holds_the_jpegs_untouched_with_their_classes(wheel, tmp_path):
    write_photo_tar(tmp_path / "photos.tar", wheel)
    with tarfile.open(tmp_path / "photos.tar") as tar:
        read = {member.name: tar.extractfile(member).read() for member in tar}
    first, second = photos(wheel)
    assert read == {
        "imagenet_00.jpg": first.data,
        "imagenet_00.cls": b"900",
        "imagenet_01.jpg": second.data,
        "imagenet_01.cls": b"901",
    }
    before = hashlib.sha256((tmp_path / "photos.tar").read_bytes()).hexdigest()
    write_photo_tar(tmp_path / "photos.tar", wheel)
    assert hashlib.sha256((tmp_path / "photos.tar").read_bytes()).hexdigest() == before
