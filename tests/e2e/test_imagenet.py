"""Real ImageNet teachers on real photographs, through kd-label and kd-teacher check."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from softlabel.labeler.check import check
from softlabel.labeler.config import LabelConfig
from softlabel.labeler.run import label
from softlabel.labeler.samples import take_samples
from softlabel.labeler.teacher import Teacher, open_teacher
from softlabel.labeler.verdict import better
from softlabel.shards.decoders import open_decoder
from softlabel.shards.invariants import problems
from softlabel.shards.recipe import Recipe
from softlabel.shards.views import view
from softlabel.tools.realdata import teachers
from softlabel.tools.realdata.fetch import fetch
from softlabel.tools.realdata.imagenet import write_photo_tar
from softlabel.tools.realdata.packages import KNOWN_IMAGES

pytestmark = pytest.mark.real
TOP_K = 16


@pytest.fixture(scope="module")
def photo_tar(real, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photos.tar"
    write_photo_tar(path, real(fetch, KNOWN_IMAGES))
    return path


@pytest.fixture(scope="module")
def lite0(real) -> Path:
    return real(teachers.efficientnet_lite0)


def labels(teacher: Path, tar: Path, out: Path, **changes):
    config = LabelConfig(teacher=teacher, shards=(str(tar),), out=out, top_k=TOP_K, **changes)
    store = label(config).store
    assert not list(problems(store))
    return store


def plain_logits(teacher: Path, tar: Path, rows, recipe: Recipe) -> np.ndarray:
    """Pillow, numpy and the unmodified teacher, one photograph at a time."""
    session = ort.InferenceSession(str(teacher), providers=["CPUExecutionProvider"])
    _, height, width = recipe.input_size
    data = tar.read_bytes()
    found = []
    for offset, size in zip(rows["offset"].tolist(), rows["size"].tolist(), strict=True):
        with Image.open(io.BytesIO(data[offset : offset + size])) as opened:
            image = opened.convert("RGB")
        box = view(
            "center",
            seed=0,
            key_hash=0,
            number=0,
            height=image.height,
            width=image.width,
            crop_pct=recipe.crop_pct,
            crop_mode=recipe.crop_mode,
            target_height=height,
            target_width=width,
        )
        image = image.crop((box.left, box.top, box.left + box.width, box.top + box.height))
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float64)
        x = (pixels / 255 - np.array(recipe.mean)) / np.array(recipe.std)
        x = x.transpose(2, 0, 1)[None].astype(np.float32)
        found.append(session.run(["logits"], {"input": x})[0][0])
    return np.array(found, np.float64)


@pytest.mark.parametrize("decoder", ["pillow", "torchvision"])
def test_lite0_names_at_least_17_of_20_photographs(lite0, photo_tar, tmp_path, decoder):
    rows = labels(lite0, photo_tar, tmp_path / "s", decoder=decoder).read(0)
    right = (rows["topk_class"][:, 0, 0] == rows["target"]).sum()
    top5 = (rows["topk_class"][:, 0, :5] == rows["target"][:, None]).any(-1).sum()
    assert len(rows["target"]) == 20
    assert right >= 17
    assert top5 >= 19


def test_what_is_stored_is_what_the_plain_teacher_says(lite0, photo_tar, tmp_path):
    store = labels(lite0, photo_tar, tmp_path / "s", decoder="pillow")
    rows = store.read(0)
    recipe = Recipe.from_dict(store.manifest.recipe, source="manifest")
    z = plain_logits(lite0, photo_tar, rows, recipe)
    d = -np.sort(-z, axis=-1) - z.max(-1, keepdims=True)
    error = np.abs(rows["topk_logit"][:, 0].astype(np.float64) - d[:, :TOP_K])
    assert (error <= 2.0**-11 * np.abs(d[:, :TOP_K]) + 0.002).all(), error.max()
    for i, t in enumerate(store.manifest.temperatures):
        tail = np.log(np.exp(d[:, TOP_K:] / t).sum(-1))
        assert np.abs(rows["tail_lse"][:, 0, i] - tail).max() < 1e-3
    assert np.abs(rows["max_logit"][:, 0] - z.max(-1)).max() < 1e-3


def checked(teacher: Teacher, recipe: Recipe, tar: Path):
    decoder = open_decoder("pillow", max_pixels=10**8)
    samples = take_samples([str(tar)], count=20, decoder=decoder, image_ext=("jpg",))
    assert len(samples) == 20
    return check(teacher, recipe, samples, decoder=decoder).results


@pytest.mark.parametrize(
    ("build", "mistakes"),
    [
        (teachers.efficientnet_lite0, ["channels bgr", "raw pixels 0..255"]),
        (teachers.squeezenet11, ["channels rgb", "pixels in 0..1", "ImageNet mean and std"]),
    ],
)
def test_kd_teacher_check_shows_wrong_recipes_as_worse(real, photo_tar, build, mistakes):
    teacher = open_teacher(real(build))
    results = checked(teacher, teacher.recipe, photo_tar)
    # A filter's worth can't be told apart on 20 images, so only the mistakes are looked at.
    assert not {name for name, _ in better(results)} & set(mistakes)
    found = dict(results)
    for mistake in mistakes:
        wrong = found[mistake]
        assert wrong.consistency.mean() < found["as given"].consistency.mean(), mistake
        assert wrong.hits.mean() < found["as given"].hits.mean(), mistake


@pytest.mark.parametrize(
    ("build", "wrong"),
    [
        (teachers.squeezenet11, {"channels": "rgb"}),
        (teachers.squeezenet11, {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}),
        (teachers.efficientnet_lite0, {"mean": (0.0,) * 3, "std": (1 / 255,) * 3}),
    ],
)
def test_kd_teacher_check_says_that_a_wrong_recipe_is_not_the_best(real, photo_tar, build, wrong):
    teacher = open_teacher(real(build))
    assert teacher.recipe is not None
    assert better(checked(teacher, replace(teacher.recipe, **wrong), photo_tar))
