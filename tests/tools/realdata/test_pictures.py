import io

import numpy as np
import pytest
from PIL import Image

from softlabel.shards.errors import ImageError
from softlabel.tools.realdata import pictures
from softlabel.tools.realdata.pictures import grey, resized, square, squares


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_wide_picture_is_whole_in_the_middle_of_white():
    shown = square(Image.new("RGB", (40, 20), (10, 20, 30)), 8)
    assert shown.shape == (8, 8, 3)
    assert (shown[2:6] == (10, 20, 30)).all()
    assert (shown[:2] == 255).all()
    assert (shown[6:] == 255).all()


def test_what_is_transparent_is_white_whatever_colour_hides_there():
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (16, 0, 32, 32))
    shown = square(image, 16).astype(int)
    # Between red and white, never darker than either: no rim of the hidden black.
    assert (shown[..., 0] >= 195).all()
    assert (shown[:, :6] == 255).all()
    assert (shown[:, 10:] == (200, 0, 0)).all()


@pytest.mark.parametrize("mode", ["P", "L"])
def test_transparency_that_stands_in_the_palette_counts_too(mode):
    image = Image.new(mode, (8, 8), 0)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0)
    found = squares({"a": buffer.getvalue()}, 4, say=print)
    assert (found == 255).all()


def test_a_line_of_one_pixel_keeps_a_pixel():
    assert (square(Image.new("L", (300, 1), 0), 10) == 0).all(-1).sum() == 10


def test_shrinking_averages_and_does_not_skip():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    shown = square(Image.fromarray(stripes), 8)
    assert np.abs(shown[:, 1:-1].astype(int) - 127).max() <= 4


def test_pictures_come_in_the_order_of_their_files():
    files = {str(value): png(Image.new("RGB", (9, 9), (value,) * 3)) for value in range(0, 250, 7)}
    found = squares(files, 3, say=print)
    assert found[:, 0, 0, 0].tolist() == list(range(0, 250, 7))


def test_giants_are_left_out_undecoded_and_it_is_said(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    monkeypatch.setattr(pictures.opened, "__kwdefaults__", {"max_pixels": 100})
    said = []
    files = {"a": png(Image.new("L", (11, 10))), "b": png(Image.new("L", (10, 10), 7))}
    found = squares(files, 2, say=said.append)
    assert found.tolist() == [[[[7] * 3] * 2] * 2]
    assert said == ["left out 1 pictures of more than 0 MP"]


def test_a_picture_that_is_none_is_an_error():
    with pytest.raises(ImageError, match="wanted JPEG, PNG or WebP"):
        squares({"a": b"<svg/>"}, 4, say=print)


def test_grey_is_what_pillow_calls_grey():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (5, 6, 6, 3), np.uint8)
    expected = [np.asarray(Image.fromarray(image).convert("L")) for image in images]
    for channel in range(3):
        np.testing.assert_array_equal(grey(images)[..., channel], expected)


def test_images_of_the_side_are_not_touched_and_others_keep_their_mean():
    images = np.random.default_rng(2).integers(60, 190, (3, 24, 24), np.uint8)
    np.testing.assert_array_equal(resized(images, 24), images)
    small = resized(images, 8)
    assert small.shape == (3, 8, 8)
    np.testing.assert_allclose(small.mean((1, 2)), images.mean((1, 2)), atol=1)
