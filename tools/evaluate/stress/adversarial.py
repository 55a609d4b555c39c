"""How students stand attacks, and how far what fools them fools the teacher too.

N images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.evaluate.bootstrap import Figure, Mean, Measure, estimate
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.stress.attacks import Attack, craft, noisy
from softlabel.tools.evaluate.stress.degrade import resized
from softlabel.tools.evaluate.teacher_session import TeacherOnImages

_Classes = NDArray[np.int64]
_DIFFERENCE = "difference"
"""Stands in the place of a role."""


@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """What attacks on each student did.

    A figure's name is kind/what: `accuracy_clean`, `accuracy`, `accuracy_noise` with targets;
    `agreement_clean`, `agreement`, `agreement_noise` with the teacher, on the same pictures;
    `fooled`, `fooled_noise`: of the pictures that the student answered with their class before,
    the share that it does not after; `transfer`, `transfer_noise`: likewise of the teacher, on
    pictures made against the student; `transfer_excess`: the first of the two minus the second. A
    picture's class is its target, or without one the teacher's label: what the attack leads away
    from. `_noise` is uniform noise with the same largest change: what chance does.
    """

    attacks: Sequence[Attack]
    figures: Mapping[str, Mapping[str, Figure]]
    """By role of the student attacked, then by name."""
    differences: Mapping[str, Figure]
    """Student minus control, each attacked itself; of all but `transfer_excess`."""
    n: int
    """Pictures."""

    def to_dict(self) -> dict[str, Any]:
        """As evaluation.json has it."""
        return {
            "attacks": {attack.kind: attack.to_dict() for attack in self.attacks},
            "images": self.n,
            "figures": {
                role: {name: figure.to_dict() for name, figure in own.items()}
                for role, own in self.figures.items()
            },
            "student_minus_control": {n: f.to_dict() for n, f in self.differences.items()},
        }


class AttackedAnswers:
    """Attacks every student on batches of pictures, and asks the teacher; then `finish`.

    The teacher is shown the student's own view, resized to its input where that differs, clean and
    attacked alike: its clean answer may so differ from its label.
    """

    def __init__(
        self, models: Sequence[Model], teacher: TeacherOnImages | None, *, attacks: Sequence[Attack]
    ) -> None:
        self._models = models
        self._teacher = teacher
        self._attacks = attacks
        self._classes: dict[tuple[str, str, str], list[_Classes]] = {}
        self._target: list[_Classes] = []
        self._wanted: list[_Classes] = []

    def add(
        self,
        pixels: Mapping[str, NDArray[np.uint8]],
        *,
        key_hash: NDArray[np.uint64],
        target: _Classes,
        label: _Classes,
    ) -> None:
        """Attack a batch.

        Args:
            pixels: by role of each student, [n, H, W, 3] at its size.
            key_hash: [n], decides random starts and noise.
            target: [n], -1 without one.
            label: [n] the teacher's first class: that of pictures without a target.
        """
        wanted = np.where(target >= 0, target, label)
        for model in self._models:
            own = pixels[model.role]
            for attack in self._attacks:
                shown = (
                    own,
                    craft(model, own, wanted, attack, key_hash=key_hash),
                    noisy(own, attack, key_hash=key_hash),
                )
                self._keep(model, attack, "student", [model.logits(p).argmax(1) for p in shown])
                if self._teacher is not None:
                    size, asked = self._teacher.size, self._teacher.logits
                    found = [asked(resized(p, *size)).argmax(1) for p in shown]
                    self._keep(model, attack, "teacher", found)
        self._target.append(target)
        self._wanted.append(wanted)

    def finish(self) -> Adversarial:
        """All figures of the pictures so far."""
        measures: dict[str, Measure] = {}
        differences = {}
        for model in self._models:
            for attack in self._attacks:
                start = f"{model.role} {attack.kind}"
                own = self._measures(model, attack)
                measures |= {f"{start}/{name}": measure for name, measure in own.items()}
                both = (f"{start}/transfer", f"{start}/transfer_noise")
                differences[f"{start}/transfer_excess"] = both
        differences |= _pairs(measures)
        figures: dict[str, dict[str, Figure]] = {model.role: {} for model in self._models}
        figures[_DIFFERENCE] = {}
        for key, figure in estimate(measures, differences=differences).items():
            role, _, name = key.partition(" ")
            figures[role][name] = figure
        return Adversarial(
            differences=figures.pop(_DIFFERENCE),
            attacks=self._attacks,
            figures=figures,
            n=sum(map(len, self._target)),
        )

    def _keep(self, model: Model, attack: Attack, who: str, found: Sequence[_Classes]) -> None:
        key = (model.role, attack.kind, who)
        self._classes.setdefault(key, []).append(np.stack(found, 1))

    def _measures(self, model: Model, attack: Attack) -> dict[str, Measure]:
        target, wanted = np.concatenate(self._target), np.concatenate(self._wanted)
        student = np.concatenate(self._classes[model.role, attack.kind, "student"])
        found: dict[str, Measure] = {}
        for i, name in enumerate(("accuracy_clean", "accuracy", "accuracy_noise")):
            found[name] = Mean(student[:, i] == target, target >= 0)
        found |= _fooled("fooled", student, wanted)
        if self._teacher is not None:
            teacher = np.concatenate(self._classes[model.role, attack.kind, "teacher"])
            every = np.ones(len(target), np.bool_)
            for i, name in enumerate(("agreement_clean", "agreement", "agreement_noise")):
                found[name] = Mean(student[:, i] == teacher[:, i], every)
            found |= _fooled("transfer", teacher, wanted)
        return found


def _fooled(name: str, answers: _Classes, wanted: _Classes) -> dict[str, Measure]:
    """From what one model said [N, 3] of clean, attacked and noisy pictures of classes [N]."""
    clean, attacked, noise = answers.T
    before = clean == wanted
    return {name: Mean(attacked != wanted, before), f"{name}_noise": Mean(noise != wanted, before)}


def _pairs(measures: Mapping[str, Measure]) -> dict[str, tuple[str, str]]:
    """Which measures' differences to take: the student's minus the control's."""
    names = [key.partition(" ")[2] for key in measures if key.startswith("control ")]
    return {f"{_DIFFERENCE} {name}": (f"student {name}", f"control {name}") for name in names}
