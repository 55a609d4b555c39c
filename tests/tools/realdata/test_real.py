"""Every figure that is promised about the real data and the real teachers."""

import hashlib
import io
import json

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from softlabel.shards.recipe import METADATA_KEY, Recipe
from softlabel.tools.realdata import cifar10, mltk_cifar10, teachers
from softlabel.tools.realdata.fetch import fetch
from softlabel.tools.realdata.imagenet import known_cifar10, photos
from softlabel.tools.realdata.packages import CIFAR10_RESNET, KNOWN_IMAGES

pytestmark = pytest.mark.real

IMAGENET_USUAL = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
RAW = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}
TO_ONE = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class PlainTeacher:
    """A teacher run as its file says, by Pillow, numpy and onnxruntime and none of our readers."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.recipe = Recipe.from_dict(json.loads(metadata[METADATA_KEY]), source=str(path))
        self.class_names = json.loads(metadata["softlabel.class_names"])

    def crop(self, data):
        side = self.recipe.input_size[1]
        scale = round(side / self.recipe.crop_pct)
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
        ratio = scale / min(image.size)
        size = (round(image.width * ratio), round(image.height * ratio))
        image = image.resize(size, FILTERS[self.recipe.interpolation])
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return np.asarray(image.crop((left, top, left + side, top + side)))

    def logits(self, images, *, mean=None, std=None, channels=None):
        """The recipe's numbers, unless a test asks for wrong ones."""
        x = images[..., ::-1] if (channels or self.recipe.channels) == "bgr" else images
        x = x.astype(np.float32) / 255
        x = (x - np.array(mean or self.recipe.mean)) / np.array(std or self.recipe.std)
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)
        batches = [x[start : start + 250] for start in range(0, len(x), 250)]
        return np.concatenate([self.session.run(["logits"], {"input": b})[0] for b in batches])


@pytest.fixture(scope="module")
def cifar(real):
    return real(cifar10.load)


@pytest.fixture(scope="module")
def samples(real):
    return real(fetch, KNOWN_IMAGES)


@pytest.fixture(scope="module")
def photographs(samples):
    return photos(samples)


@pytest.fixture(scope="module")
def cifar10_resnet(real):
    return PlainTeacher(real(teachers.cifar10_resnet))


@pytest.fixture(scope="module")
def lite0(real):
    return PlainTeacher(real(teachers.efficientnet_lite0))


@pytest.fixture(scope="module")
def squeezenet(real):
    return PlainTeacher(real(teachers.squeezenet11))


def right(teacher, photographs, **wrong) -> tuple[int, int]:
    """How many of the 20 photographs are right at first sight, and within five guesses."""
    images = np.stack([teacher.crop(photo.data) for photo in photographs])
    targets = np.array([photo.target for photo in photographs])[:, None]
    hits = (-teacher.logits(images, **wrong)).argsort(1)[:, :5] == targets
    return int(hits[:, 0].sum()), int(hits.any(1).sum())


def test_cifar10_is_the_published_one_in_the_published_order(cifar):
    assert cifar.train.targets[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
    std = []
    for channel in range(3):
        counts = np.bincount(cifar.train.images[..., channel].ravel(), minlength=256)
        values = np.arange(256) / 255
        mean = np.average(values, weights=counts)
        std.append(np.average((values - mean) ** 2, weights=counts) ** 0.5)
    np.testing.assert_allclose(std, [0.24703223, 0.24348513, 0.26158784], atol=1e-7)


def test_the_first_test_images_are_another_sources_bit_for_bit(cifar, samples):
    known = known_cifar10(samples)
    assert len(known.images) == 20
    np.testing.assert_array_equal(cifar.test.images[:20], known.images)
    np.testing.assert_array_equal(cifar.test.targets[:20], known.targets)


@pytest.mark.parametrize(
    ("wrong", "low", "high"),
    [({}, 0.8214, 0.8234), (TO_ONE, 0.68, 0.71), (RAW, 0, 0.1), ({"channels": "bgr"}, 0.7, 0.72)],
    ids=["recipe", "to-one", "raw", "bgr"],
)
def test_the_cifar10_teacher_scores_as_measured(cifar, cifar10_resnet, wrong, low, high):
    logits = cifar10_resnet.logits(cifar.test.images, **wrong)
    assert low <= (logits.argmax(1) == cifar.test.targets).mean() <= high


def test_efficientnet_knows_the_photographs(lite0, photographs):
    first, five = right(lite0, photographs)
    assert (first >= 17, five >= 19) == (True, True)
    assert right(lite0, photographs, **RAW)[0] <= 3


def test_squeezenet_knows_the_photographs_and_only_as_its_recipe_says(squeezenet, photographs):
    first, five = right(squeezenet, photographs)
    assert (first >= 13, five >= 18) == (True, True)
    assert right(squeezenet, photographs, channels="rgb")[0] <= 10
    assert right(squeezenet, photographs, **IMAGENET_USUAL)[0] <= 1
    assert right(squeezenet, photographs, **TO_ONE)[0] <= 1


def test_class_names_are_in_class_order(lite0, cifar10_resnet):
    assert len(lite0.class_names) == 1000
    names = [lite0.class_names[number] for number in (0, 207, 281, 291, 967, 999)]
    assert names == ["tench", "Golden Retriever", "tabby cat", "lion", "espresso", "toilet paper"]
    assert cifar10_resnet.class_names == list(cifar10.CLASS_NAMES)


@pytest.mark.usefixtures("cifar10_resnet")
def test_a_teacher_built_again_is_the_same_file():
    again = mltk_cifar10.build(fetch(CIFAR10_RESNET)).SerializeToString(deterministic=True)
    built = teachers.cifar10_resnet().read_bytes()
    assert hashlib.sha256(again).digest() == hashlib.sha256(built).digest()
