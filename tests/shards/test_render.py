"""From a decoded picture and a view to the pixels that a model sees."""

import importlib.util
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from softlabel.shards.decoders import DECODERS, open_decoder
from softlabel.shards.pixels import mirrored, nearest
from softlabel.shards.views import VIEW_RECIPES, View, view

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


@pytest.fixture(scope="module")
def decoders():
    return {name: open_decoder(name, max_pixels=10**7) for name in DECODERS}


@pytest.fixture(params=DECODERS)
def decoder(request, decoders):
    return decoders[request.param]


def noisy(height, width, seed=0):
    """Smooth colours, sharp edges and grain, as a photograph has them."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    smooth = smooth + rng.integers(-25, 26, smooth.shape)
    smooth[height // 3 :, width // 2 :] //= 2
    return np.clip(smooth, 0, 255).astype(np.uint8)


def encode(pixels, format, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def sample_data(name):
    spec = importlib.util.find_spec("matplotlib")
    return (Path(spec.origin).parent / "mpl-data" / "sample_data" / name).read_bytes()


PHOTOS = {
    "hopper": lambda: sample_data("grace_hopper.jpg"),
    "minduka": lambda: sample_data("Minduka_Present_Blue_Pack.png"),
    "quality 75": lambda: encode(noisy(333, 500), "JPEG", quality=75),
    "quality 95": lambda: encode(noisy(375, 500, seed=1), "JPEG", quality=95),
    "tiny": lambda: encode(noisy(32, 32, seed=2), "PNG"),
}


def drawn(recipe, picture, target, key_hash=1):
    return view(
        recipe,
        seed=1,
        key_hash=key_hash,
        number=0,
        height=picture.height,
        width=picture.width,
        crop_pct=0.875,
        crop_mode="center",
        target_height=target[0],
        target_width=target[1],
    )


def whole(pixels, flip=False):
    return View(0, 0, *pixels.shape[:2], flip)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("photo", PHOTOS)
def test_both_decoders_agree_far_within_one_grey_level(decoders, photo, interpolation):
    data = PHOTOS[photo]()
    for recipe in VIEW_RECIPES:
        for height, width in ((224, 224), (600, 300), (32, 48)):
            found = []
            for decoder in decoders.values():
                picture = decoder.decode(data)
                box = drawn(recipe, picture, (height, width))
                size = {"height": height, "width": width}
                found.append(decoder.render(picture, box, **size, interpolation=interpolation))
            error = np.abs(found[0].astype(int) - found[1])
            assert error.mean() < 0.05, (recipe, height, width)
            assert error.max() <= 3, (recipe, height, width)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(50, 41), (131, 200), (77, 90)])
def test_a_box_is_cut_and_then_resized_as_pillow_does(decoder, interpolation, size):
    pixels = noisy(100, 90)
    box = View(11, 7, 77, 61, False)
    picture = decoder.decode(encode(pixels, "PNG"))
    found = decoder.render(picture, box, height=size[0], width=size[1], interpolation=interpolation)
    cropped = Image.fromarray(pixels[11:88, 7:68])
    expected = np.asarray(cropped.resize((size[1], size[0]), INTERPOLATIONS[interpolation]))
    assert np.abs(found.astype(int) - expected).mean() < 0.05


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_pixels_outside_the_box_have_no_weight(decoder, interpolation):
    pixels = noisy(100, 90)
    repainted = 255 - pixels
    repainted[20:80, 30:70] = pixels[20:80, 30:70]
    box = View(20, 30, 60, 40, False)
    one, two = (
        decoder.render(
            decoder.decode(encode(image, "PNG")),
            box,
            height=32,
            width=32,
            interpolation=interpolation,
        )
        for image in (pixels, repainted)
    )
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 40, 30), (-5, 3, 40, 30), (4, -3, 40, 30), (7, 2, 20, 25)])
def test_a_box_of_the_asked_size_is_copied(decoder, box, flip):
    pixels = noisy(40, 30)
    picture = decoder.decode(encode(pixels, "PNG"))
    height, width = box[2:]
    found = decoder.render(
        picture, View(*box, flip), height=height, width=width, interpolation="bicubic"
    )
    around = np.pad(pixels, ((10, 10), (10, 10), (0, 0)), mode="edge")
    expected = around[10 + box[0] :, 10 + box[1] :][:height, :width]
    np.testing.assert_array_equal(found, expected[:, ::-1] if flip else expected)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_outside_the_image_the_nearest_edge_pixel_is_repeated(height, width, data):
    decoder = open_decoder("pillow", max_pixels=100)
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    top, left = data.draw(st.integers(-5, height - 1)), data.draw(st.integers(-5, width - 1))
    size = data.draw(st.integers(max(1, 1 - top), 15)), data.draw(st.integers(max(1, 1 - left), 15))
    found = decoder.render(
        decoder.decode(encode(pixels, "PNG")),
        View(top, left, *size, False),
        height=size[0],
        width=size[1],
        interpolation="nearest",
    )
    rows = np.clip(np.arange(top, top + size[0]), 0, height - 1)
    columns = np.clip(np.arange(left, left + size[1]), 0, width - 1)
    np.testing.assert_array_equal(found, pixels[rows][:, columns])


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_flipped_view_is_the_mirror_image(decoder, interpolation):
    picture = decoder.decode(encode(noisy(60, 50), "JPEG"))
    one, two = (
        decoder.render(
            picture, View(3, 4, 41, 37, flip), height=33, width=45, interpolation=interpolation
        )
        for flip in (False, True)
    )
    np.testing.assert_array_equal(two, one[:, ::-1])


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(40, 30), (17, 23)])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_the_result_is_a_new_writable_contiguous_array(decoder, size, flip, interpolation):
    pixels = noisy(40, 30)
    picture = decoder.decode(encode(pixels, "PNG"))
    how = {"height": size[0], "width": size[1], "interpolation": interpolation}
    found = decoder.render(picture, whole(pixels, flip), **how)
    assert found.shape == (*size, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    before = found.copy()
    found[:] = 0
    np.testing.assert_array_equal(decoder.render(picture, whole(pixels, flip), **how), before)


@pytest.mark.parametrize("size", [(1, 1), (161, 1), (1, 161), (3, 2), (2, 3000)])
def test_extreme_shapes_render_in_every_recipe(decoder, size):
    picture = decoder.decode(encode(noisy(*size), "PNG"))
    for recipe in VIEW_RECIPES:
        for key_hash in range(5):
            for interpolation in INTERPOLATIONS:
                box = drawn(recipe, picture, (24, 40), key_hash)
                found = decoder.render(
                    picture, box, height=24, width=40, interpolation=interpolation
                )
                assert found.shape == (24, 40, 3)


@given(st.integers(1, 40), st.integers(1, 40))
def test_nearest_takes_the_pixel_under_the_centre(side, target):
    pixels = np.repeat(np.arange(side, dtype=np.uint8)[:, None, None], 3, axis=2)
    centres = [(2 * i + 1) * side // (2 * target) for i in range(target)]
    assert nearest(pixels, target, 1)[:, 0, 0].tolist() == centres


def test_a_mirror_image_is_exact_and_new():
    pixels = noisy(5, 7)
    flipped = mirrored(pixels)
    np.testing.assert_array_equal(flipped, pixels[:, ::-1])
    assert flipped.flags.c_contiguous
    assert not np.shares_memory(flipped, pixels)


def test_a_box_above_pillows_own_limit_is_no_bomb(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    decoder = open_decoder("pillow", max_pixels=10**6)
    pixels = noisy(60, 50)
    picture = decoder.decode(encode(pixels, "PNG"))
    found = decoder.render(
        picture, View(5, 6, 50, 40, False), height=50, width=40, interpolation="bilinear"
    )
    np.testing.assert_array_equal(found, pixels[5:55, 6:46])


def test_one_decoder_serves_several_threads(decoder):
    files = [PHOTOS[name]() for name in PHOTOS] * 4

    def render(data):
        picture = decoder.decode(data)
        box = drawn("rrc-flip", picture, (64, 64), len(data))
        return decoder.render(picture, box, height=64, width=64, interpolation="bicubic").tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(render, files)) == [render(data) for data in files]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads through /proc")
def test_decoding_and_rendering_start_no_threads_and_leave_torchs_number(decoders):
    import torch

    data = encode(noisy(375, 500), "JPEG")
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    grown = []

    def work():
        start = len(list(Path("/proc/self/task").iterdir()))
        decoder = open_decoder("torchvision", max_pixels=10**7)
        picture = decoder.decode(data)
        for flip in (False, True):
            box = View(0, 90, 375, 375, flip)
            decoder.render(picture, box, height=300, width=300, interpolation="bicubic")
        grown.append(len(list(Path("/proc/self/task").iterdir())) - start)
        grown.append(torch.get_num_threads() - 4)

    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert grown == [0, 0]
