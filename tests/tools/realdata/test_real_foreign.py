"""What is promised about MNIST, its teacher and the foreign collections, on the real packages."""

import json

import numpy as np
import onnxruntime
import pytest

from softlabel.tools.realdata import fashion, mnist, teachers
from softlabel.tools.realdata.collections import COLLECTIONS

pytestmark = pytest.mark.real

SIDE = 28
COUNTS = {"openclipart": 6883, "tuxpaint": 796, "emoji": 3786, "fashion-mnist": 70_000}


def test_mnist_is_the_published_one_in_the_published_order(real):
    read = real(mnist.load)
    assert read.train.targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert read.test.targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


@pytest.mark.parametrize(
    ("mean", "std", "low", "high"), [(0.1307, 0.3081, 0.9905, 0.9905), (0, 1 / 255, 0.98, 0.988)]
)
def test_the_mnist_teacher_scores_as_measured(real, mean, std, low, high):
    test, path = real(mnist.load).test, real(teachers.mnist_cnn)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["softlabel.class_names"])
    assert names == list("0123456789")
    right = 0
    for start in range(0, 10_000, 500):
        images = (test.images[start : start + 500] / 255 - mean) / std
        x = np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)
        logits, features = session.run(["logits", "features"], {"input": x})
        assert features.shape == (500, 128)
        right += int((logits.argmax(1) == test.targets[start : start + 500]).sum())
    assert low <= right / 10_000 <= high


@pytest.mark.parametrize("name", COUNTS)
def test_a_collection_has_every_picture_of_its_package(real, name):
    images = real(COLLECTIONS[name], SIDE)
    assert images.shape == (COUNTS[name], SIDE, SIDE, 3)
    # Hardly any is blank. Clothes are dark, pictures are on white.
    assert (images.std((1, 2, 3)) > 1).mean() > 0.99


def test_wallpapers_are_thousands_of_tiles_that_show_something(real):
    images = real(COLLECTIONS["wallpapers"], SIDE)
    assert 4_000 <= len(images) <= 10_000
    assert images.mean(-1).std((1, 2)).min() >= 5


def test_fashion_mnist_has_its_classes_in_the_order_of_the_collection(real):
    split = real(fashion.load)
    assert np.bincount(split.targets).tolist() == [7_000] * 10
    np.testing.assert_array_equal(split.images, real(COLLECTIONS["fashion-mnist"], SIDE))
    assert round(split.images.std() / 255, 4) == 0.3530
