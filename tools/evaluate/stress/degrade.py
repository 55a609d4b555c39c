"""Pictures made worse in nine ways and five severities, each a function of picture, key and seed.

The kinds are Hendrycks & Dietterich's (2019, arXiv:1903.12261), the strengths our own: theirs are
for photographs of 224 pixels, and these serve 8 to 512. What has a length grows with the picture's
shorter side. Noise comes from numpy's Philox: equal versions of numpy give equal pictures.
"""

import io
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SEVERITIES = (1, 2, 3, 4, 5)

Picture = NDArray[np.uint8]
_Unit = NDArray[np.float32]
"""[H, W, 3] in 0..1."""
_Change = Callable[[Picture, float, np.random.Generator], Picture]

_GAUSSIAN_NOISE = (0.04, 0.08, 0.12, 0.18, 0.26)
"""Standard deviation, of pixels in 0..1."""
_SHOT_NOISE = (250.0, 100.0, 50.0, 25.0, 12.0)
"""Photons of a white pixel."""
_IMPULSE_NOISE = (0.02, 0.05, 0.09, 0.15, 0.23)
"""Share of values that become 0 or 255."""
_GAUSSIAN_BLUR = (0.004, 0.009, 0.015, 0.022, 0.032)
"""Standard deviation in shorter sides, beyond LEAST_BLUR: 1.2 to 7.5 pixels of 224 in all."""
LEAST_BLUR = 0.35
"""Standard deviation in pixels; a Gaussian of less changes nothing."""
_CONTRAST = (0.7, 0.5, 0.35, 0.22, 0.12)
"""What is left of the distance to the picture's mean colour."""
_BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Added, of pixels in 0..1."""
_PIXELATE = (0.7, 0.5, 0.37, 0.28, 0.2)
"""Blocks a pixel, along each side."""
_JPEG = (50.0, 30.0, 18.0, 11.0, 6.0)
"""Pillow's quality; colour is stored at half the resolution."""
_DROPOUT = (0.05, 0.12, 0.2, 0.3, 0.45)
"""Share of pixels that become black."""

_REACH = 4.0
"""Standard deviations after which a blur's kernel is cut."""


def degrade(image: Picture, kind: str, severity: int, *, key_hash: int, seed: int = 0) -> Picture:
    """A degraded copy of a picture.

    Args:
        image: [H, W, 3] RGB, as a model would see it before normalisation.
        kind: one of KINDS.
        severity: 1 to 5.
        key_hash: of the picture's key, 64 bits; with the rest it decides the noise.
        seed: 64 bits.

    Returns:
        [H, W, 3], a new array.

    Raises:
        ValueError: another kind, severity, shape or dtype.
    """
    if kind not in _CHANGES or severity not in SEVERITIES:
        raise ValueError(f"wanted one of {KINDS} at {SEVERITIES}, got {kind!r} at {severity!r}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"wanted uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    change, by_severity = _CHANGES[kind]
    return change(image, by_severity[severity - 1], _noise(key_hash, seed, kind, severity))


def strengths(kind: str) -> Sequence[float]:
    """Of a kind of KINDS at severities 1 to 5, in the unit that stands with its constant above."""
    return _CHANGES[kind][1]


def degrade_all(
    images: Picture, kind: str, severity: int, *, key_hash: NDArray[np.uint64], seed: int = 0
) -> Picture:
    """`degrade` each of [N, H, W, 3], with its key [N]."""
    out = np.empty_like(images)
    for i, key in enumerate(key_hash.tolist()):
        out[i] = degrade(images[i], kind, severity, key_hash=key, seed=seed)
    return out


def resized(images: Picture, height: int, width: int) -> Picture:
    """[N, H, W, 3] at another size, bilinear with antialias; the same array if it has it."""
    if images.shape[1:3] == (height, width):
        return images
    out = np.empty((len(images), height, width, 3), np.uint8)
    for i, image in enumerate(images):
        small = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        out[i] = np.asarray(small)
    return out


def _noise(key_hash: int, seed: int, kind: str, severity: int) -> np.random.Generator:
    # Words 0 and 1 count the draws; 2 and 3 keep kinds and severities apart.
    counter = np.array([0, 0, KINDS.index(kind), severity], np.uint64)
    key = np.array([key_hash, seed], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _unit(image: Picture) -> _Unit:
    return image.astype(np.float32) / np.float32(255)


def _picture(x: NDArray[np.floating]) -> Picture:
    whole: Picture = np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
    return whole


def _gaussian_noise(image: Picture, sigma: float, noise: np.random.Generator) -> Picture:
    x = _unit(image)
    return _picture(x + np.float32(sigma) * noise.standard_normal(x.shape, np.float32))


def _shot_noise(image: Picture, photons: float, noise: np.random.Generator) -> Picture:
    return _picture(noise.poisson(_unit(image) * photons) / photons)


def _impulse_noise(image: Picture, share: float, noise: np.random.Generator) -> Picture:
    drawn = noise.random(image.shape, np.float32)
    out = image.copy()
    out[drawn < share / 2] = 0
    out[drawn > 1 - share / 2] = 255
    return out


def _gaussian_blur(image: Picture, share: float, noise: np.random.Generator) -> Picture:
    H, W, _ = image.shape
    sigma = LEAST_BLUR + share * min(H, W)
    rows, columns = _blur_matrix(H, sigma), _blur_matrix(W, sigma)
    return _picture(np.einsum("ih,hwc,jw->ijc", rows, _unit(image), columns, optimize=True))


@lru_cache(maxsize=64)
def _blur_matrix(size: int, sigma: float) -> _Unit:
    """[size, size]: a Gaussian about each pixel; beyond the edge the picture is mirrored."""
    radius = int(_REACH * sigma + 0.5)
    offset = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    place = (np.arange(size)[:, None] + offset) % (2 * size)
    place = np.where(place < size, place, 2 * size - 1 - place)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], place), kernel / kernel.sum())
    return matrix.astype(np.float32)


def _contrast(image: Picture, left: float, noise: np.random.Generator) -> Picture:
    x = _unit(image)
    mean = x.mean((0, 1))
    return _picture(mean + np.float32(left) * (x - mean))


def _brightness(image: Picture, added: float, noise: np.random.Generator) -> Picture:
    return _picture(_unit(image) + np.float32(added))


def _pixelate(image: Picture, share: float, noise: np.random.Generator) -> Picture:
    H, W, _ = image.shape
    blocks = (max(1, round(W * share)), max(1, round(H * share)))
    small = Image.fromarray(image).resize(blocks, Image.Resampling.BOX)
    return np.array(small.resize((W, H), Image.Resampling.NEAREST))


def _jpeg(image: Picture, quality: float, noise: np.random.Generator) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=round(quality), subsampling="4:2:0")
    return np.array(Image.open(buffer))


def _dropout(image: Picture, share: float, noise: np.random.Generator) -> Picture:
    out = image.copy()
    out[noise.random(image.shape[:2], np.float32) < share] = 0
    return out


_CHANGES: dict[str, tuple[_Change, Sequence[float]]] = {
    "gaussian_noise": (_gaussian_noise, _GAUSSIAN_NOISE),
    "shot_noise": (_shot_noise, _SHOT_NOISE),
    "impulse_noise": (_impulse_noise, _IMPULSE_NOISE),
    "gaussian_blur": (_gaussian_blur, _GAUSSIAN_BLUR),
    "contrast": (_contrast, _CONTRAST),
    "brightness": (_brightness, _BRIGHTNESS),
    "pixelate": (_pixelate, _PIXELATE),
    "jpeg": (_jpeg, _JPEG),
    "dropout": (_dropout, _DROPOUT),
}

KINDS = tuple(_CHANGES)
