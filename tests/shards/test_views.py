import json
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from softlabel.shards.aspects import ASPECT_BITS, ASPECTS
from softlabel.shards.golden import golden_views, golden_words
from softlabel.shards.views import VIEW_RECIPES, View, view

WORDS = st.integers(0, 2**64 - 1)
SIDES = st.one_of(st.integers(1, 40), st.integers(1, 40_000))
CROP_PCTS = st.floats(0.05, 1.0)
GOLDEN = Path(__file__).parent / "golden_views.json"


def draw(recipe="rrc-flip", **changed):
    arguments = {
        "seed": 3,
        "key_hash": 0x9E3779B97F4A7C15,
        "number": 0,
        "height": 375,
        "width": 500,
        "crop_pct": 0.875,
        "crop_mode": "center",
        "target_height": 224,
        "target_width": 224,
    }
    return view(recipe, **(arguments | changed))


def test_views_and_words_are_the_golden_vectors():
    golden = json.loads(GOLDEN.read_text())
    assert golden["words"] == golden_words()
    assert golden["views"] == golden_views()


def test_aspects_are_the_documented_formula():
    with localcontext() as context:
        context.prec = 50
        step = (Decimal(4) / 3).ln()
        exact = [2**ASPECT_BITS * (step * (Decimal(2 * i + 1) / 256 - 1)).exp() for i in range(256)]
        assert [int(value + Decimal("0.5")) for value in exact] == list(ASPECTS)


@given(WORDS, WORDS, st.integers(0, 2**40), SIDES, SIDES, st.sampled_from(["rrc", "rrc-flip"]))
def test_a_random_crop_is_inside_the_image_and_not_empty(seed, key, number, height, width, recipe):
    box = draw(recipe, seed=seed, key_hash=key, number=number, height=height, width=width)
    assert 0 <= box.top < box.top + box.height <= height
    assert 0 <= box.left < box.left + box.width <= width


@given(SIDES, SIDES, CROP_PCTS, st.sampled_from(["center", "squash"]), SIDES, SIDES)
def test_the_center_crop_is_inside_the_image_and_not_empty(height, width, pct, mode, th, tw):
    sizes = {"height": height, "width": width, "target_height": th, "target_width": tw}
    box = draw("center", crop_pct=pct, crop_mode=mode, **sizes)
    assert 0 <= box.top < box.top + box.height <= height
    assert 0 <= box.left < box.left + box.width <= width
    assert not box.flip


@given(WORDS, WORDS, SIDES, SIDES)
def test_a_shifted_box_is_the_image_moved_by_at_most_an_eighth(seed, key, height, width):
    box = draw("crop-flip", seed=seed, key_hash=key, height=height, width=width)
    assert (box.height, box.width) == (height, width)
    assert abs(box.top) <= height // 8
    assert abs(box.left) <= width // 8


def test_a_shifted_box_takes_every_offset_about_equally_often():
    boxes = [draw("crop-flip", number=n, height=32, width=16) for n in range(4500)]
    tops = np.bincount([box.top + 4 for box in boxes], minlength=9)
    lefts = np.bincount([box.left + 2 for box in boxes], minlength=5)
    assert len(tops) == 9
    assert len(lefts) == 5
    assert tops.min() > 0.8 * 500
    assert lefts.min() > 0.9 * 900
    together = np.corrcoef([box.top for box in boxes], [box.left for box in boxes])[0, 1]
    assert abs(together) < 0.06


@pytest.mark.parametrize("recipe", ["crop-flip", "rrc-flip"])
def test_half_of_the_views_are_flipped_whatever_the_box(recipe):
    boxes = [draw(recipe, number=n) for n in range(4000)]
    flips = np.array([box.flip for box in boxes])
    assert abs(flips.mean() - 0.5) < 0.03
    for field in ("top", "left", "height", "width"):
        values = np.array([getattr(box, field) for box in boxes], float)
        if values.std() > 0:
            assert abs(np.corrcoef(flips, values)[0, 1]) < 0.06, field


@pytest.mark.parametrize("recipe", ["center", "rrc"])
def test_a_recipe_without_flip_never_flips(recipe):
    assert not any(draw(recipe, key_hash=key).flip for key in range(200))


def test_rrc_flip_has_the_boxes_of_rrc():
    for number in range(50):
        plain, flipped = draw("rrc", number=number), draw("rrc-flip", number=number)
        assert plain == View(flipped.top, flipped.left, flipped.height, flipped.width, False)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (100, 260), (300, 100)])
def test_random_crops_are_distributed_as_torchvisions(height, width):
    import torch
    from torchvision.transforms import RandomResizedCrop

    image = torch.empty(1, height, width)
    torch.manual_seed(1)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    )
    drawn = [draw("rrc", key_hash=key, height=height, width=width) for key in range(3000)]
    ours = np.array([(box.top, box.left, box.height, box.width) for box in drawn])
    for name, measure in {
        "top": lambda b: b[:, 0] / height,
        "left": lambda b: b[:, 1] / width,
        "area": lambda b: b[:, 2] * b[:, 3] / (height * width),
        "aspect": lambda b: np.log(b[:, 3] / b[:, 2]),
    }.items():
        ranks = np.linspace(0.02, 0.98, 25)
        ours_at, theirs_at = (np.quantile(measure(boxes), ranks) for boxes in (ours, theirs))
        spread = np.ptp(measure(theirs))
        assert np.abs(ours_at - theirs_at).max() <= 0.06 * spread, name


def test_areas_are_uniform_where_every_attempt_fits():
    # Boxes of at most a third of the area always fit; among those, area is uniform from 0.08.
    areas = []
    for key in range(6000):
        box = draw("rrc", key_hash=key, height=2000, width=2000)
        areas.append(box.height * box.width / 2000**2)
    small = [area for area in areas if area < 0.33]
    counts = np.histogram(small, bins=5, range=(0.08, 0.33))[0]
    assert min(areas) > 0.079
    assert counts.min() > 0.85 * counts.mean()
    assert counts.max() < 1.15 * counts.mean()


def test_aspects_and_places_are_uniform_in_their_range():
    boxes = [draw("rrc", key_hash=key, height=3000, width=3000) for key in range(6000)]
    small = [box for box in boxes if box.height * box.width < 0.5 * 3000**2]
    aspects = [np.log(box.width / box.height) / np.log(4 / 3) for box in small]
    tops = [box.top / (3000 - box.height) for box in small]
    lefts = [box.left / (3000 - box.width) for box in small]
    for values, span in ((aspects, (-1, 1)), (tops, (0, 1)), (lefts, (0, 1))):
        counts = np.histogram(values, bins=5, range=span)[0]
        assert counts.sum() == len(small)
        assert counts.min() > 0.85 * counts.mean()
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (1, 1, View(0, 0, 1, 1, False)),
        (1, 161, View(0, 80, 1, 1, False)),
        (30000, 2, View(14998, 0, 3, 2, False)),
        (2, 30000, View(0, 14998, 2, 3, False)),
        (100, 1, View(49, 0, 1, 1, False)),
    ],
)
def test_a_shape_that_no_attempt_fits_is_cut_in_the_middle(height, width, box):
    assert {draw("rrc", key_hash=key, height=height, width=width) for key in range(5)} == {box}


@pytest.mark.parametrize("recipe", ["crop-flip", "rrc-flip"])
def test_views_of_one_image_are_independent(recipe):
    firsts = [draw(recipe, key_hash=key, number=0) for key in range(2000)]
    seconds = [draw(recipe, key_hash=key, number=1) for key in range(2000)]
    for field in ("top", "left", "flip"):
        one = [float(getattr(box, field)) for box in firsts]
        two = [float(getattr(box, field)) for box in seconds]
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.08, field


@pytest.mark.parametrize("changed", [{"seed": 4}, {"key_hash": 1}, {"number": 1}])
def test_seed_key_and_number_each_change_the_view(changed):
    assert draw("rrc") != draw("rrc", **changed)


@pytest.mark.parametrize("recipe", VIEW_RECIPES)
def test_the_same_arguments_give_the_same_view(recipe):
    assert draw(recipe) == draw(recipe)


@pytest.mark.parametrize("recipe", ["crop-flip", "rrc", "rrc-flip"])
def test_random_views_do_not_depend_on_the_teachers_input(recipe):
    other = {"crop_pct": 1.0, "crop_mode": "squash", "target_height": 7, "target_width": 9}
    assert draw(recipe) == draw(recipe, **other)


def timm_edges(size, coordinate, *, crop_pct, crop_mode, target):
    """Where timm's crop begins and ends along one axis, read off a picture of coordinates."""
    from timm.data.transforms_factory import transforms_imagenet_eval

    height, width = size
    pixels = np.zeros((height, width), np.float32)
    axis = 0 if coordinate == "y" else 1
    centres = np.arange(size[axis], dtype=np.float32) + 0.5
    pixels += centres[:, None] if axis == 0 else centres[None]
    transform = transforms_imagenet_eval(
        target, crop_pct=crop_pct, crop_mode=crop_mode, interpolation="bilinear", normalize=False
    )
    for stage in transform.transforms[:2]:  # resize, crop; the rest is for 8-bit pictures
        pixels = stage(pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels))
    line = np.asarray(pixels).take(target[1 - axis] // 2, axis=1 - axis)
    # Away from the edges, where the filter is cut off, the picture of a slope is a slope.
    n = len(line)
    low, high = n // 4, 3 * n // 4
    step = (line[high] - line[low]) / (high - low)
    return line[low] - (low + 0.5) * step, line[high] + (n - high - 0.5) * step


@pytest.mark.slow
@pytest.mark.parametrize("target", [(224, 224), (255, 255), (256, 192)])
@pytest.mark.parametrize("size", [(375, 500), (601, 403), (120, 100), (64, 64)])
@pytest.mark.parametrize(
    ("crop_pct", "crop_mode"), [(0.875, "center"), (0.95, "center"), (0.9, "squash")]
)
def test_the_center_view_is_timms_evaluation_crop_to_half_a_pixel(
    target, size, crop_pct, crop_mode
):
    ours = draw(
        "center",
        height=size[0],
        width=size[1],
        crop_pct=crop_pct,
        crop_mode=crop_mode,
        target_height=target[0],
        target_width=target[1],
    )
    how = {"crop_pct": crop_pct, "crop_mode": crop_mode, "target": target}
    top, bottom = timm_edges(size, "y", **how)
    left, right = timm_edges(size, "x", **how)
    found = np.array([ours.top, ours.top + ours.height, ours.left, ours.left + ours.width])
    assert np.abs(found - [top, bottom, left, right]).max() <= 0.51


def test_a_crop_share_written_with_six_digits_gives_timms_scale():
    # 240 / 0.882353 is 271.99997: the share of a model that is resized to 272 and cut to 240.
    side = {"height": 272, "width": 272, "target_height": 240, "target_width": 240}
    assert draw("center", crop_pct=0.882353, **side) == View(16, 16, 240, 240, False)
    assert draw("center", crop_pct=240 / 272, **side) == View(16, 16, 240, 240, False)


@pytest.mark.parametrize(
    ("scaled", "target", "pct", "start"), [(235, 224, 0.95, 6), (329, 288, 0.875, 20)]
)
def test_an_odd_margin_is_split_as_torchvision_splits_it(scaled, target, pct, start):
    sizes = {"height": scaled, "width": scaled, "target_height": target, "target_width": target}
    assert draw("center", crop_pct=pct, **sizes) == View(start, start, target, target, False)


def test_squashing_at_full_size_takes_the_whole_image():
    whole = draw("center", crop_pct=1.0, crop_mode="squash", height=90, width=31)
    assert whole == View(0, 0, 90, 31, False)


def test_center_has_no_second_view():
    with pytest.raises(ValueError, match="one view"):
        draw("center", number=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"seed": 2**64},
        {"key_hash": 2**64},
        {"number": -1},
        {"height": 0},
        {"width": 0},
        {"target_height": 0},
        {"recipe": "rcc"},
        {"recipe": "center", "crop_mode": "border"},
        {"recipe": "center", "crop_pct": 0.0},
        {"recipe": "center", "crop_pct": 1.15},
    ],
)
def test_an_argument_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        draw(**wrong)
