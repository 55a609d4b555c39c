"""The golden vectors: inputs whose views may never change, printed into docs/format.md.

The outputs are committed in tests/shards/golden_views.json; a view that differs from them would
pair a stored label with another crop than the one it was made on.
"""

from dataclasses import asdict
from typing import Any

from softlabel.shards.philox import philox
from softlabel.shards.views import VIEW_RECIPES, view

_KEY_HASHES = (0, 0x0123456789ABCDEF, 0xFFFFFFFFFFFFFFFF)
# Height, width: a CIFAR image, two of ImageNet, a camera's, and the extremes.
_SIZES = ((32, 32), (375, 500), (500, 333), (3000, 4000), (1, 1), (1, 161), (2, 3), (2, 30000))
_SEEDS_AND_NUMBERS = ((0, 0), (42, 1), (2**64 - 1, 2**32))
# crop_pct, crop_mode, target height and width; only `center` depends on them.
_EVALUATIONS = (
    (0.875, "center", 224, 224),
    (0.95, "center", 224, 224),
    (240 / 272, "center", 240, 240),
    (1.0, "squash", 384, 384),
    (0.9, "squash", 128, 96),
    (1.0, "center", 1024, 768),
)
_PHILOX_INPUTS = (
    ((0, 0), (0, 0, 0, 0)),
    ((42, 0x0123456789ABCDEF), (1, 0, 0, 0)),
    ((2**64 - 1, 2**64 - 1), (2**64 - 1, 9, 0, 0)),
)


def golden_words() -> list[dict[str, list[int]]]:
    """Key, counter and random words of the generator."""
    return [
        {"key": list(key), "counter": list(counter), "words": list(philox(key, counter))}
        for key, counter in _PHILOX_INPUTS
    ]


def golden_views() -> list[dict[str, object]]:
    """One record a view: the arguments of `view`, then the box and the flip."""
    rows: list[dict[str, object]] = []
    for recipe in VIEW_RECIPES:
        draws = _SEEDS_AND_NUMBERS if recipe != "center" else ((0, 0),)
        evaluations = _EVALUATIONS if recipe == "center" else _EVALUATIONS[:1]
        for place, (height, width) in enumerate(_SIZES):
            for seed, number in draws:
                for crop_pct, crop_mode, target_height, target_width in evaluations:
                    arguments: dict[str, Any] = {
                        "seed": seed,
                        "key_hash": _KEY_HASHES[place % len(_KEY_HASHES)],
                        "number": number,
                        "height": height,
                        "width": width,
                        "crop_pct": crop_pct,
                        "crop_mode": crop_mode,
                        "target_height": target_height,
                        "target_width": target_width,
                    }
                    drawn = asdict(view(recipe, **arguments))
                    rows.append({"recipe": recipe, **arguments, "view": drawn})
    return rows
