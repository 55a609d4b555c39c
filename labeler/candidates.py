"""The usual mistakes of pre-processing: recipes to hold the given one against."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from softlabel.shards.recipe import Recipe

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CAFFE = {
    "mean": (103.939 / 255, 116.779 / 255, 123.68 / 255),
    "std": (1 / 255, 1 / 255, 1 / 255),
    "channels": "bgr",
}
_SCALINGS = {
    "pixels in 0..1": {"mean": (0.0,) * 3, "std": (1.0,) * 3},
    "pixels in -1..1": {"mean": (0.5,) * 3, "std": (0.5,) * 3},
    "ImageNet mean and std": _IMAGENET,
    "raw pixels 0..255": {"mean": (0.0,) * 3, "std": (1 / 255,) * 3},
    "BGR minus mean (Caffe)": _CAFFE,
}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way to feed the teacher."""

    name: str
    recipe: Recipe
    antialias: bool = True
    """False: each pixel is interpolated between its four neighbours, however much it shrinks."""


def candidates(given: Recipe, *, scalings: bool) -> list[Candidate]:
    """The given recipe first, then each usual mistake that differs from it.

    Args:
        scalings: also other means and stds; a teacher that takes uint8 has none.
    """
    first = Candidate(name="as given", recipe=given)
    found = [first]
    for candidate in _mistakes(given, scalings=scalings):
        alike = (c.recipe == candidate.recipe and c.antialias == candidate.antialias for c in found)
        if not any(alike):
            found.append(candidate)
    return found


def _mistakes(given: Recipe, *, scalings: bool) -> Iterator[Candidate]:
    other = "rgb" if given.channels == "bgr" else "bgr"
    yield Candidate(name=f"channels {other}", recipe=replace(given, channels=other))
    for name, changes in _SCALINGS.items() if scalings else ():
        yield Candidate(name=name, recipe=replace(given, **changes))  # type: ignore[arg-type]
    for crop_pct in (1.0, 0.875):
        yield Candidate(name=f"crop_pct {crop_pct:g}", recipe=replace(given, crop_pct=crop_pct))
    mode = "center" if given.crop_mode == "squash" else "squash"
    yield Candidate(name=f"crop_mode {mode}", recipe=replace(given, crop_mode=mode))
    filter_name = "bilinear" if given.interpolation == "bicubic" else "bicubic"
    yield Candidate(
        name=f"interpolation {filter_name}", recipe=replace(given, interpolation=filter_name)
    )
    yield Candidate(name="no antialias", recipe=given, antialias=False)
