"""Letters drawn from the fonts inside matplotlib: a stand-in for EMNIST that needs no download."""

import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LETTERS = string.ascii_uppercase + string.ascii_lowercase
FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique"),
    *("DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique"),
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
    *("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10", "cmmi10"),
)

_DRAWN = 64  # pixels of a font's em, before turning and shrinking
_FINER = 4  # a letter is placed on pixels this much finer, then each block of them is averaged
_TURN = np.deg2rad(15)
_SIZE = (0.7, 1.0)  # the glyph's longer side in sides of the image
_STRETCH = 1.25
_SHIFT = 0.06
_LIGHT = (0.75, 1.0)


def letters(
    side: int, count: int, *, seed: int = 0, characters: str = LETTERS
) -> NDArray[np.uint8]:
    """[count, side, side] light letters on black, or other characters if so asked.

    Letter, font, turn, size, stretch, shift and brightness are drawn at random for each image.
    """
    glyphs = [drawn for font in FONTS for drawn in _glyphs(font, characters)]
    rng = np.random.default_rng(seed)
    images = np.empty((count, side, side), np.uint8)
    for row in range(count):
        images[row] = _placed(glyphs[rng.integers(len(glyphs))], side, rng)
    return images


def _glyphs(name: str, characters: str) -> Iterator[Image.Image]:
    """The characters of a font as a grey image that it fills to its edges."""
    from matplotlib import get_data_path

    path = Path(get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    font = ImageFont.truetype(str(path), _DRAWN, layout_engine=ImageFont.Layout.BASIC)
    for letter in characters:
        left, top, right, bottom = (round(edge) for edge in font.getbbox(letter))
        glyph = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(glyph).text((-left, -top), letter, fill=255, font=font)
        yield glyph


def _placed(glyph: Image.Image, side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The glyph once, somewhere about the middle of a square."""
    fine = side * _FINER
    angle = rng.uniform(-_TURN, _TURN)
    stretch = _STRETCH ** rng.uniform(-0.5, 0.5)
    scale = max(glyph.size) / (rng.uniform(*_SIZE) * fine)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    # From a place in the image to the place in the glyph that is seen there.
    matrix = turned * scale * np.array([[stretch], [1 / stretch]])
    middle = fine / 2 + rng.uniform(-_SHIFT, _SHIFT, 2) * fine
    offset = np.array(glyph.size) / 2 - matrix @ middle
    coefficients = (*matrix[0], offset[0], *matrix[1], offset[1])
    placed = glyph.transform(
        (fine, fine),
        Image.Transform.AFFINE,
        [float(value) for value in coefficients],
        Image.Resampling.BILINEAR,
    )
    blocks = np.asarray(placed, np.float64).reshape(side, _FINER, side, _FINER).mean((1, 3))
    light = rng.uniform(*_LIGHT) * 255 / max(blocks.max(), 1)
    image: NDArray[np.uint8] = np.rint(blocks * light).astype(np.uint8)
    return image
