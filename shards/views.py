"""The crop and flip a label is made on, drawn from a seed: one copy for labeler and trainer.

A view is a pure function of its arguments in integer arithmetic, the same on every machine and for
ever; docs/format.md states the rules and the golden vectors. Random words are
`philox(key=(seed, key_hash), counter=(number, attempt, 0, 0))`, attempt 0 unless said otherwise,
and the lowest bit of word 1 is the flip.
"""

import operator
from dataclasses import dataclass
from math import isqrt

from softlabel.shards.aspects import ASPECT_BITS, ASPECTS
from softlabel.shards.philox import Words, below, philox

VIEW_RECIPES = ("center", "crop-flip", "rrc", "rrc-flip")
CROP_MODES = ("center", "squash")
ATTEMPTS = 10
SMALLEST_CROP_PCT = 1e-6
_MILLION = 10**6
_WORD_LIMIT = 1 << 64


@dataclass(frozen=True, slots=True)
class View:
    """A box on the upright image in pixels, then perhaps a mirror image of it.

    A `crop-flip` box may reach outside: each pixel there repeats the nearest edge pixel.
    """

    top: int
    left: int
    height: int
    width: int
    flip: bool


def view(
    recipe: str,
    *,
    seed: int,
    key_hash: int,
    number: int,
    height: int,
    width: int,
    crop_pct: float,
    crop_mode: str,
    target_height: int,
    target_width: int,
) -> View:
    """View `number` of the image with this key hash and upright size.

    Args:
        recipe: one of VIEW_RECIPES.
        seed: of the labelling run, 64 bits.
        key_hash: xxh3-64 of the member's key.
        number: 0 is the first view; `center` has no other.
        height: of the upright image in pixels; `width` likewise.
        crop_pct: of the TEACHER's recipe, as `crop_mode`; only `center` uses them.
        target_height: the TEACHER's input size, also for a student with another: its view is the
            same box, resized to its own size; `target_width` likewise.

    Raises:
        ValueError: an argument is out of range, or `center` is asked for a second view.
    """
    if min(height, width, target_height, target_width) < 1:
        raise ValueError(
            f"sizes must be at least 1, got {height}x{width} to {target_height}x{target_width}"
        )
    if not (0 <= seed < _WORD_LIMIT and 0 <= key_hash < _WORD_LIMIT and 0 <= number < _WORD_LIMIT):
        raise ValueError(
            f"seed, key_hash and number must fit 64 bits, got {seed}, {key_hash}, {number}"
        )
    if recipe == "center":
        if number > 0:
            raise ValueError(f"view recipe center has one view, asked for number {number}")
        return _center(height, width, crop_pct, crop_mode, target_height, target_width)
    words = philox((seed, key_hash), (number, 0, 0, 0))
    flip = bool(words[1] & 1)
    if recipe == "crop-flip":
        return _shifted(words, height, width, flip)
    if recipe == "rrc":
        return _random_resized(words, seed, key_hash, number, height, width, False)
    if recipe == "rrc-flip":
        return _random_resized(words, seed, key_hash, number, height, width, flip)
    raise ValueError(f"view recipe must be one of {', '.join(VIEW_RECIPES)}, got {recipe!r}")


def _center(
    height: int, width: int, crop_pct: float, crop_mode: str, target_height: int, target_width: int
) -> View:
    """timm's evaluation crop: each of its edges, taken back to the source and rounded to a pixel.

    timm resizes the image to cover floor(target / crop_pct), or for squash to be exactly that, and
    cuts the target from the middle.
    """
    scaled_height = _scale(target_height, crop_pct)
    scaled_width = _scale(target_width, crop_pct)
    if crop_mode == "center":
        # torchvision's Resize truncates the longer side; timm's own, for other shapes, rounds.
        longer = operator.floordiv if target_height == target_width else _rounded
        if height * scaled_width <= width * scaled_height:
            scaled_width = longer(width * scaled_height, height)
        else:
            scaled_height = longer(height * scaled_width, width)
    elif crop_mode != "squash":
        raise ValueError(f"crop_mode must be one of {', '.join(CROP_MODES)}, got {crop_mode!r}")
    top, bottom = _edges(height, scaled_height, target_height)
    left, right = _edges(width, scaled_width, target_width)
    return View(top, left, bottom - top, right - left, False)


def _edges(side: int, scaled: int, target: int) -> tuple[int, int]:
    """Where the middle `target` of a side resized to `scaled` begins and ends on the source."""
    half, odd = divmod(scaled - target, 2)
    start = half + (odd & half)  # torchvision's CenterCrop rounds half a pixel to even
    first = min(_rounded(start * side, scaled), side - 1)
    last = _rounded((start + target) * side, scaled)
    return first, max(last, first + 1)


def _scale(target: int, crop_pct: float) -> int:
    """floor(target / crop_pct), with crop_pct known to half a millionth.

    Of all values that round to the same parts per million this takes the smallest, so that 0.882353
    for 240 / 272 gives 272 again, as timm's quotient of floats does, and not 271.
    """
    ppm = round(crop_pct * _MILLION)
    if not 1 <= ppm <= _MILLION:
        raise ValueError(f"crop_pct must be above 0 and at most 1, got {crop_pct}")
    return 2 * target * _MILLION // (2 * ppm - 1)


def _shifted(words: Words, height: int, width: int, flip: bool) -> View:
    """The whole image, moved by up to an eighth of each side (rounded down)."""
    pad_height, pad_width = height // 8, width // 8
    top = below(words[0], 2 * pad_height + 1) - pad_height
    left = below(words[2], 2 * pad_width + 1) - pad_width
    return View(top, left, height, width, flip)


def _random_resized(
    words: Words, seed: int, key_hash: int, number: int, height: int, width: int, flip: bool
) -> View:
    """torchvision's RandomResizedCrop: 0.08 to 1 of the area, aspect 3/4 to 4/3, ten attempts."""
    for attempt in range(ATTEMPTS):
        if attempt:
            words = philox((seed, key_hash), (number, attempt, 0, 0))
        # (8 + 92 u) / 100 of the area, u = word / 2**64, over one common denominator.
        area = height * width * ((2 << 64) + 23 * words[0])
        aspect = ASPECTS[words[1] >> 56]
        box_width = _root(area * aspect, 25 << 64 + ASPECT_BITS)
        box_height = _root(area << ASPECT_BITS, (25 << 64) * aspect)
        if 1 <= box_width <= width and 1 <= box_height <= height:
            top = below(words[2], height - box_height + 1)
            left = below(words[3], width - box_width + 1)
            return View(top, left, box_height, box_width, flip)
    if 4 * width < 3 * height:
        return _middle(height, width, _rounded(4 * width, 3), width, flip)
    if 3 * width > 4 * height:
        return _middle(height, width, height, _rounded(4 * height, 3), flip)
    return View(0, 0, height, width, flip)


def _middle(height: int, width: int, box_height: int, box_width: int, flip: bool) -> View:
    return View((height - box_height) // 2, (width - box_width) // 2, box_height, box_width, flip)


def _rounded(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def _root(numerator: int, denominator: int) -> int:
    """The square root of a fraction, rounded half up."""
    return (isqrt(4 * numerator // denominator) + 1) // 2
