import io
import struct
import tarfile

import numpy as np
import pytest

from softlabel.shards.errors import IdentityError
from softlabel.tools.realdata.mnist import Mnist, from_package, idx, verify
from softlabel.tools.realdata.split import Split

PER_CLASS = {
    "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}


def idx_of(array) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (2, 5, 28, 28), np.uint8)


def test_the_four_files_become_grey_rgb_images_with_their_classes(pixels, tmp_path):
    with tarfile.open(tmp_path / "mnist.tgz", "w:gz") as tar:
        for name, images in zip(("t10k", "train"), pixels, strict=True):
            targets = np.arange(5, dtype=np.uint8)[:: -1 if name == "train" else 1]
            for part, array in (("images-idx3", images), ("labels-idx1", targets)):
                member = tarfile.TarInfo(f"package/data/{name}-{part}-ubyte")
                data = idx_of(np.ascontiguousarray(array))
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    read = from_package(tmp_path / "mnist.tgz")
    for split, images in ((read.test, pixels[0]), (read.train, pixels[1])):
        assert split.images.shape == (5, 28, 28, 3)
        for channel in range(3):
            np.testing.assert_array_equal(split.images[..., channel], images)
    assert read.train.targets.tolist() == [4, 3, 2, 1, 0]
    assert read.test.targets.dtype == np.int64


def test_a_file_cut_short_or_of_another_kind_is_refused(pixels):
    data = idx_of(pixels[0])
    np.testing.assert_array_equal(idx(data, magic=2051), pixels[0])
    for wrong in (data[:-1], data + b"0", idx_of(pixels[0, 0]), data[:9]):
        with pytest.raises(IdentityError, match="MNIST: wanted an IDX file of magic number 2051"):
            idx(wrong, magic=2051)


def blank(skew=0):
    def split(per_class):
        targets = np.repeat(np.arange(10), per_class)
        targets[:skew] = 9
        return Split(
            images=np.broadcast_to(np.uint8(0), (len(targets), 28, 28, 3)), targets=targets
        )

    return Mnist(train=split(PER_CLASS["train"]), test=split(PER_CLASS["test"]))


def test_images_that_are_not_mnist_are_refused():
    with pytest.raises(IdentityError, match=r"wanted mean 0\.1307 .* found 0\.0000"):
        verify(blank())
    with pytest.raises(IdentityError, match=r"wanted \(5923, .* images of the 10 classes"):
        verify(blank(skew=1))
