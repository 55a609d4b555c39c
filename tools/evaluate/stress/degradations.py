"""How much of accuracy and of agreement is left on degraded pictures.

N images, B resamples, L versions of a picture: clean, then each kind at severities 1 to 5.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.evaluate.bootstrap import ANY, Figure, Mean, Measure, Span, estimate, ratio
from softlabel.tools.evaluate.metrics import Floats
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.stress.degrade import (
    LEAST_BLUR,
    SEVERITIES,
    degrade_all,
    resized,
    strengths,
)
from softlabel.tools.evaluate.teacher_session import TeacherOnImages

ALL = "all"
"""Stands for the mean over all kinds."""
CLEAN = "clean"
MEAN = "mean"
"""Over the severities."""
RELATIVE = "relative"
"""That mean over the clean value."""

_Version = tuple[str, int]
_Classes = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Degradations:
    """What the models make of degraded pictures.

    A figure's name is metric/kind/level: accuracy or agreement; a kind or `all`; a severity, `mean`
    or `relative`. On clean pictures it is metric/clean.
    """

    kinds: Sequence[str]
    figures: Mapping[str, Mapping[str, Figure]]
    """By role, then by name; accuracy needs targets, agreement the teacher itself."""
    differences: Mapping[str, Figure]
    """Student minus control, of means and relative means."""
    n: int
    """Pictures."""
    size: tuple[int, int]
    """Height and width at which they were degraded."""
    seed: int
    """Of the noise."""

    def curve(self, role: str, metric: str, kind: str) -> list[Figure]:
        """Clean, then severities 1 to 5; empty where there is no such metric."""
        own = self.figures[role]
        names = [f"{metric}/{CLEAN}", *(f"{metric}/{kind}/{s}" for s in SEVERITIES)]
        return [own[name] for name in names] if names[0] in own else []

    def to_dict(self) -> dict[str, Any]:
        """As evaluation.json has it; a strength's unit depends on its kind, see `degrade`."""
        return {
            "kinds": list(self.kinds),
            "images": self.n,
            "size": list(self.size),
            "seed": self.seed,
            "strengths": {kind: list(strengths(kind)) for kind in self.kinds},
            "least_blur": LEAST_BLUR,
            "figures": {
                role: {name: figure.to_dict() for name, figure in own.items()}
                for role, own in self.figures.items()
            },
            "student_minus_control": {n: f.to_dict() for n, f in self.differences.items()},
        }


class DegradedAnswers:
    """Shows batches of pictures in all versions to all models; then `finish`.

    All see the same degraded picture: it is degraded once, at the largest input size among the
    models, and then resized to each one's own. A model of smaller pictures so meets less noise a
    pixel, as it would in the world.
    """

    def __init__(
        self,
        models: Sequence[Model],
        teacher: TeacherOnImages | None,
        *,
        kinds: Sequence[str],
        seed: int = 0,
    ) -> None:
        self._models = models
        self._teacher = teacher
        self._kinds = tuple(kinds)
        self._seed = seed
        self._classes: dict[str, list[_Classes]] = {}
        self._target: list[_Classes] = []
        self._size = (0, 0)

    @property
    def num_versions(self) -> int:
        """L"""
        return 1 + len(self._kinds) * len(SEVERITIES)

    def add(
        self, pixels: NDArray[np.uint8], *, key_hash: NDArray[np.uint64], target: NDArray[np.int64]
    ) -> None:
        """Ask about a batch.

        Args:
            pixels: [n, H, W, 3] at the largest size.
            key_hash: [n], decides the noise.
            target: [n], -1 without one.
        """
        found: dict[str, list[_Classes]] = {}
        for kind, severity in self._versions():
            shown = pixels
            if severity:
                shown = degrade_all(pixels, kind, severity, key_hash=key_hash, seed=self._seed)
            for role, first in self._first(shown):
                found.setdefault(role, []).append(first)
        for role, columns in found.items():
            self._classes.setdefault(role, []).append(np.stack(columns, 1))
        self._target.append(target)
        self._size = (pixels.shape[1], pixels.shape[2])

    def finish(self) -> Degradations:
        """All figures of the pictures so far."""
        target = np.concatenate(self._target)
        classes = {role: np.concatenate(parts) for role, parts in self._classes.items()}
        measures: dict[str, Measure] = {}
        for role, own in classes.items():
            right = {"accuracy": (own == target[:, None], target >= 0)}
            if self._teacher is not None and role != "teacher":
                right["agreement"] = (own == classes["teacher"], np.ones_like(target, np.bool_))
            for metric, (hit, where) in right.items():
                measures |= {
                    f"{role} {metric}/{name}": m for name, m in self._measures(hit, where).items()
                }
        figures = _by_role(estimate(measures, differences=_pairs(measures)), ["difference"])
        differences = figures.pop("difference")
        return Degradations(
            kinds=self._kinds,
            figures={role: figures.get(role, {}) for role in classes},
            differences=differences,
            n=len(target),
            size=self._size,
            seed=self._seed,
        )

    def _versions(self) -> list[_Version]:
        return [(CLEAN, 0), *((kind, s) for kind in self._kinds for s in SEVERITIES)]

    def _first(self, pixels: NDArray[np.uint8]) -> Iterator[tuple[str, _Classes]]:
        for model in self._models:
            recipe = model.described.recipe
            logits = model.logits(resized(pixels, recipe.height, recipe.width))
            yield model.role, logits.argmax(1)
        if self._teacher is not None:
            yield "teacher", self._teacher.logits(resized(pixels, *self._teacher.size)).argmax(1)

    def _measures(self, hit: NDArray[np.bool_], where: NDArray[np.bool_]) -> dict[str, Measure]:
        """Of one role and metric, from whether each version [N, L] was a hit."""
        clean = hit[:, 0]
        by_kind = hit[:, 1:].reshape(len(hit), len(self._kinds), len(SEVERITIES))
        found: dict[str, Measure] = {CLEAN: Mean(clean, where)}
        for k, kind in enumerate(self._kinds):
            for s, severity in enumerate(SEVERITIES):
                found[f"{kind}/{severity}"] = Mean(by_kind[:, k, s], where)
        for k, kind in enumerate((*self._kinds, ALL)):
            share = hit[:, 1:].mean(1) if kind == ALL else by_kind[:, k].mean(1)
            found[f"{kind}/{MEAN}"] = Mean(share, where)
            found[f"{kind}/{RELATIVE}"] = Relative(share, clean, where)
        return found


@dataclass(frozen=True)
class Relative:
    """The mean of `values` over that of `base`, over the images in `where`; [N] each."""

    values: Floats
    base: NDArray[np.bool_]
    where: NDArray[np.bool_]
    mirrored: ClassVar[bool] = False
    span: ClassVar[Span] = ANY

    def over(self, counts: Floats) -> Floats:
        """[B, N] counts to [B] quotients; NaN where the base's mean is 0."""
        both = np.stack([self.values * self.where, self.base & self.where], 1).astype(np.float64)
        sums = counts @ both
        return ratio(sums[:, 0], sums[:, 1])


def _pairs(measures: Mapping[str, Measure]) -> dict[str, tuple[str, str]]:
    """Which differences to take: of means, not of each severity."""
    names = [key.partition(" ")[2] for key in measures if key.startswith("control ")]
    return {
        f"difference {name}": (f"student {name}", f"control {name}")
        for name in names
        if name.endswith((CLEAN, MEAN, RELATIVE))
    }


def _by_role(figures: Mapping[str, Figure], roles: Sequence[str]) -> dict[str, dict[str, Figure]]:
    found: dict[str, dict[str, Figure]] = {role: {} for role in roles}
    for key, figure in figures.items():
        role, _, name = key.partition(" ")
        found.setdefault(role, {})[name] = figure
    return found
