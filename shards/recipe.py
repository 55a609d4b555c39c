"""A model's preprocessing as data: timm's pretrained_cfg, read strictly."""

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from softlabel.shards.errors import UsageError
from softlabel.shards.views import CROP_MODES, SMALLEST_CROP_PCT

METADATA_KEY = "softlabel.recipe"

INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
"""What both decoders do alike; timm's lanczos, box and hamming not every torch can."""

CHANNELS = ("rgb", "bgr")

CONSTANTS = {
    "IMAGENET_DEFAULT_MEAN": (0.485, 0.456, 0.406),
    "IMAGENET_DEFAULT_STD": (0.229, 0.224, 0.225),
    "IMAGENET_INCEPTION_MEAN": (0.5, 0.5, 0.5),
    "IMAGENET_INCEPTION_STD": (0.5, 0.5, 0.5),
    "IMAGENET_DPN_MEAN": (124 / 255, 117 / 255, 104 / 255),
    "IMAGENET_DPN_STD": (1 / (0.0167 * 255),) * 3,
    "OPENAI_CLIP_MEAN": (0.48145466, 0.4578275, 0.40821073),
    "OPENAI_CLIP_STD": (0.26862954, 0.26130258, 0.27577711),
}
"""timm's names for common values; `mean` and `std` may be given as one of them."""

_FIELDS = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "channels")
# The rest of timm's PretrainedCfg: a pretrained_cfg can be used as it is, and a name that is in
# neither list is a slip of the pen.
_OTHER_FIELDS_OF_TIMM = frozenset((
    "url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "architecture", "tag",
    "custom_load", "test_input_size", "min_input_size", "fixed_input_size", "test_crop_pct",
    "num_classes", "label_offset", "label_names", "label_descriptions", "pool_size",
    "test_pool_size", "first_conv", "classifier", "license", "description", "origin_url",
    "paper_name", "paper_ids", "notes",
))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How image bytes become a model's input. Every value is given: a wrong default is silent."""

    input_size: tuple[int, int, int]
    """(3, height, width)."""

    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: tuple[float, float, float]
    """Of pixels in 0..1, in the order of `channels`; likewise `std`."""

    std: tuple[float, float, float]
    channels: str = "rgb"

    def __post_init__(self) -> None:
        if problems := _problems(self.to_dict()):
            raise ValueError("; ".join(problems))

    @property
    def height(self) -> int:
        return self.input_size[1]

    @property
    def width(self) -> int:
        return self.input_size[2]

    @classmethod
    def from_dict(cls, data: Mapping[str, object], *, source: str) -> "Recipe":
        """A recipe from a timm pretrained_cfg, or from a Hub config.json that holds one.

        timm's other fields are ignored; any other name is refused. Only `channels` may be left out.

        Raises:
            UsageError: one line for each problem, beginning with `source`.
        """
        nested = data.get("pretrained_cfg")
        if isinstance(nested, Mapping) and "input_size" not in data:
            data = nested
        given: dict[str, Any] = {"channels": "rgb"}
        for name in _FIELDS:
            if name in data:
                given[name] = _plain(name, data[name])
        problems = [*_unknown(data), *_problems(given)]
        if problems:
            raise UsageError("\n".join(f"{source}: {problem}" for problem in problems))
        given["crop_pct"] = float(given["crop_pct"])
        for name in ("mean", "std"):
            given[name] = tuple(float(value) for value in given[name])
        given["input_size"] = tuple(given["input_size"])
        return cls(**given)

    @classmethod
    def from_file(cls, path: Path) -> "Recipe":
        """A recipe from a JSON file.

        Raises:
            UsageError: it cannot be read, is no JSON object, or `from_dict` refuses it.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(
                f"recipe: wanted a JSON file, found {path}: {error.strerror}"
            ) from error
        except ValueError as error:
            raise UsageError(f"{path}: wanted a recipe as a JSON object, found {error}") from error
        if not isinstance(data, dict):
            raise UsageError(f"{path}: wanted a recipe as a JSON object, found {_shown(data)}")
        return cls.from_dict(data, source=str(path))

    def to_dict(self) -> dict[str, object]:
        """JSON-able, fields in a fixed order; `from_dict` of it is an equal recipe."""
        values = {name: getattr(self, name) for name in _FIELDS}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}


def _plain(name: str, value: object) -> object:
    if name in ("mean", "std") and isinstance(value, str):
        return CONSTANTS.get(value, value)
    return value


def _unknown(data: Mapping[str, object]) -> list[str]:
    problems = []
    for name in data:
        if name not in _FIELDS and name not in _OTHER_FIELDS_OF_TIMM:
            near = difflib.get_close_matches(str(name), _FIELDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"wanted {', '.join(_FIELDS)}"
            problems.append(f"{name}: no such field; {hint}")
    return problems


def _problems(given: Mapping[str, Any]) -> list[str]:
    problems = []
    for name, (is_good, wanted) in _WANTED.items():
        if name not in given:
            problems.append(f"{name}: wanted {wanted}, found nothing")
        elif not is_good(given[name]):
            problems.append(f"{name}: wanted {wanted}, found {_shown(given[name])}")
    return problems


def _shown(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_three(value: object, is_good: Callable[[Any], bool]) -> bool:
    return (
        isinstance(value, list | tuple) and len(value) == 3 and all(is_good(item) for item in value)
    )


def _is_size(value: Any) -> bool:
    return _is_three(value, lambda side: type(side) is int and side >= 1) and value[0] == 3


def _is_share(value: Any) -> bool:
    return _is_number(value) and SMALLEST_CROP_PCT <= value <= 1


def _is_mean(value: Any) -> bool:
    return _is_three(value, lambda mean: _is_number(mean) and 0 <= mean <= 1)


def _is_std(value: Any) -> bool:
    return _is_three(value, lambda std: _is_number(std) and 0 < std <= 1)


_OF_PIXELS = "of pixels in 0..1 (or the name of timm's constant)"
_WANTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "input_size": (_is_size, "[3, height, width] in pixels"),
    "interpolation": (INTERPOLATIONS.__contains__, " or ".join(INTERPOLATIONS)),
    "crop_pct": (_is_share, "a number above 0, at most 1"),
    "crop_mode": (CROP_MODES.__contains__, " or ".join(CROP_MODES)),
    "mean": (_is_mean, f"three numbers in 0..1 {_OF_PIXELS}"),
    "std": (_is_std, f"three numbers above 0, at most 1, {_OF_PIXELS}"),
    "channels": (CHANNELS.__contains__, " or ".join(CHANNELS)),
}
