"""Degraded pictures: worse step by step, the same for everyone, as their definitions say."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from softlabel.tools.evaluate.stress import degrade as module
from softlabel.tools.evaluate.stress.degrade import KINDS, SEVERITIES, degrade, degrade_all, resized


def photographs(count: int, height: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Smooth colours with some grain, so that every kind has something to take away."""
    rng = np.random.default_rng(seed)
    out = np.empty((count, height, width, 3), np.uint8)
    for picture in out:
        coarse = Image.fromarray(rng.integers(20, 236, (5, 5, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float64)
        picture[:] = np.clip(smooth + rng.normal(0, 14, (height, width, 3)), 0, 255)
    return out


def keys(count: int) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 2**64, count, np.uint64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [8, 32, 97])
def test_each_severity_is_farther_from_the_picture(kind, side):
    images = photographs(6, side, side + 3)
    before = images.copy()
    distance = [
        np.abs(degrade_all(images, kind, s, key_hash=keys(6)).astype(float) - images).mean()
        for s in SEVERITIES
    ]
    assert (images == before).all()
    assert distance[0] > 0.5
    assert (np.diff(distance) > 0).all(), distance
    assert distance[4] > 1.2 * distance[0]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.sampled_from(SEVERITIES),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 2**64 - 1),
)
def test_any_picture_gives_one_of_its_own_shape(kind, severity, height, width, key):
    image = photographs(1, height, width)[0]
    found = degrade(image, kind, severity, key_hash=key)
    assert (found.shape, found.dtype) == (image.shape, np.uint8)
    assert (degrade(image, kind, severity, key_hash=key) == found).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_depends_on_batch_or_order(kind):
    images, key_hash = photographs(5, 16, 16), keys(5)
    whole = degrade_all(images, kind, 3, key_hash=key_hash, seed=4)
    for part in (slice(0, 2), slice(2, 5), slice(None, None, -1)):
        found = degrade_all(images[part], kind, 3, key_hash=key_hash[part], seed=4)
        assert (found == whole[part]).all()


NOISY = ("gaussian_noise", "shot_noise", "impulse_noise", "dropout")


@pytest.mark.parametrize("kind", NOISY)
def test_key_and_seed_each_draw_noise_of_their_own(kind):
    image = np.full((24, 24, 3), 128, np.uint8)

    def changed(key_hash=1, seed=0):
        return degrade(image, kind, 3, key_hash=key_hash, seed=seed).tobytes()

    drawn = [changed(), changed(2), changed(seed=1), changed(0, seed=1)]
    assert len(set(drawn)) == len(drawn)


def test_no_kind_or_severity_shares_its_draws_with_another():
    drawn = {
        module._noise(5, 6, kind, severity).random(8).tobytes()
        for kind in KINDS
        for severity in SEVERITIES
    }
    assert len(drawn) == len(KINDS) * len(SEVERITIES)


def test_large_and_smallest_seeds_and_keys_are_taken():
    image = photographs(1, 9, 9)[0]
    for number in (0, 2**63, 2**64 - 1):
        degrade(image, "gaussian_noise", 1, key_hash=number, seed=number)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_moments_that_its_definition_says(severity):
    grey = np.full((120, 120, 3), 128, np.uint8)
    x = 128 / 255
    s = severity - 1

    def pixels(kind):
        return degrade(grey, kind, severity, key_hash=7) / 255

    if severity <= 3:  # more of it is clipped at 0 and 255
        found = pixels("gaussian_noise")
        assert found.mean() == pytest.approx(x, abs=0.004)
        assert found.std() == pytest.approx(module._GAUSSIAN_NOISE[s], rel=0.03)
    found = pixels("shot_noise")
    assert found.mean() == pytest.approx(x, abs=0.006)
    if severity <= 4:
        assert found.std() == pytest.approx((x / module._SHOT_NOISE[s]) ** 0.5, rel=0.04)
    found = pixels("impulse_noise")
    assert (found == 0).mean() == pytest.approx(module._IMPULSE_NOISE[s] / 2, rel=0.15)
    assert (found == 1).mean() == pytest.approx(module._IMPULSE_NOISE[s] / 2, rel=0.15)
    found = pixels("dropout")
    assert (found.max(-1) == 0).mean() == pytest.approx(module._DROPOUT[s], rel=0.1)
    assert set(np.unique(found)) == {0.0, x}


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize(("height", "width"), [(8, 11), (40, 32), (3, 200)])
def test_the_blur_is_scipys(severity, height, width):
    image = photographs(1, height, width)[0]
    sigma = module.LEAST_BLUR + module._GAUSSIAN_BLUR[severity - 1] * min(height, width)
    wanted = gaussian_filter(image.astype(float), (sigma, sigma, 0), mode="reflect", truncate=4.0)
    found = degrade(image, "gaussian_blur", severity, key_hash=0)
    assert np.abs(found - wanted).max() < 0.51


def test_contrast_and_brightness_are_their_formulas():
    image = photographs(1, 20, 30)[0].astype(float)
    mean = image.mean((0, 1))
    for s, severity in enumerate(SEVERITIES):
        found = degrade(image.astype(np.uint8), "contrast", severity, key_hash=0)
        wanted = mean + module._CONTRAST[s] * (image - mean)
        assert np.abs(found - wanted).max() < 0.51
        found = degrade(image.astype(np.uint8), "brightness", severity, key_hash=0)
        wanted = np.minimum(image + 255 * module._BRIGHTNESS[s], 255)
        assert np.abs(found - wanted).max() < 0.51


def test_blocks_are_means_and_jpeg_is_pillows():
    image = photographs(1, 40, 40)[0]
    found = degrade(image, "pixelate", 2, key_hash=0)  # half as many blocks as pixels
    means = image.reshape(20, 2, 20, 2, 3).mean((1, 3))
    assert np.abs(found[::2, ::2] - means).max() < 1.01
    assert (found[::2] == found[1::2]).all()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=18, subsampling=2)
    assert (degrade(image, "jpeg", 3, key_hash=0) == np.asarray(Image.open(buffer))).all()


def test_resizing_keeps_what_has_the_size_and_averages_what_is_larger():
    images = photographs(2, 16, 24)
    assert resized(images, 16, 24) is images
    flat = np.full((1, 16, 16, 3), 77, np.uint8)
    assert (resized(flat, 5, 9) == 77).all()
    assert resized(images, 8, 12).shape == (2, 8, 12, 3)
    assert resized(images, 8, 12).mean() == pytest.approx(images.mean(), abs=1)


def test_other_kinds_severities_and_pictures_are_refused():
    image = photographs(1, 8, 8)[0]
    for bad in (
        lambda: degrade(image, "fog", 1, key_hash=0),
        lambda: degrade(image, "jpeg", 6, key_hash=0),
        lambda: degrade(image[..., 0], "jpeg", 1, key_hash=0),
        lambda: degrade(image.astype(np.float32), "jpeg", 1, key_hash=0),
    ):
        with pytest.raises(ValueError, match="wanted"):
            bad()
