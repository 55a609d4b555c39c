"""One student: trained by kd-train's code on stored labels, judged by kd-eval's."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from softlabel.tools.evaluate.config import EvalConfig
from softlabel.tools.evaluate.run import evaluate
from softlabel.tools.experiments.material import TEST, Labels, Tars
from softlabel.tools.experiments.tasks import Result, Task, folder_of
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.plan import Plan, make_plan
from softlabel.trainer.run import train_plan
from softlabel.trainer.training import Normaliser

_COST = {"digits": 1.0, "mnist": 2.0, "cifar10": 6.0}
"""Of a step, in steps of a digits student."""

_EVALUATION_STEPS = 100.0
_CURVE_IMAGES = 2000
_CHECKPOINT_STEPS = 500


@dataclass(frozen=True, kw_only=True)
class Run:
    """A student's training and what is measured of it; two runs that differ in title are one."""

    title: str = field(compare=False)
    labels: Labels
    training: tuple[tuple[str, Any], ...]
    """TrainConfig's fields by name, in order of names."""
    seed: int
    judge: str
    """The teacher whose labels of the test images it is compared with."""
    measured_at: tuple[int, ...] = ()
    """Steps after which the agreement with the judge is measured, on the first test images."""
    init: "Run | None" = None
    """The student it goes on with."""

    @property
    def data(self) -> str:
        """The data set's name."""
        return self.labels.data

    @property
    def cost(self) -> float:
        """In steps of a digits student."""
        return _COST.get(self.data, 1.0) * (float(self.options["steps"]) + _EVALUATION_STEPS)

    @property
    def options(self) -> dict[str, Any]:
        """TrainConfig's fields by name."""
        return dict(self.training)

    def settings(self) -> Mapping[str, Any]:
        """What decides the student and its figures."""
        return {
            "labels": self.labels.settings(),
            "training": self.options,
            "seed": self.seed,
            "judge": self.judge,
            "measured_at": list(self.measured_at),
            "init": None if self.init is None else self.init.settings(),
        }

    @property
    def truth(self) -> Labels:
        """The judge's labels of the test images."""
        return Labels(data=self.data, teacher=self.judge, pools=((TEST, None),))

    def needs(self) -> Sequence[Task]:
        """Labels to learn from, labels to be judged by, and the student to go on with."""
        needed: list[Task] = [self.labels, self.truth]
        return needed if self.init is None else [*needed, self.init]

    def student(self, folder: Path) -> Path:
        """The student's folder."""
        return folder_of(self, folder) / "student"

    def execute(self, folder: Path) -> Result:
        """Train, going on where a killed run stopped, and judge.

        Returns:
            figures by role and name, the measured agreements, and seconds.
        """
        start = time.perf_counter()
        plan = make_plan(self._config(folder))
        curve: dict[int, float] = {}
        watch = self._watch(plan, folder, curve) if self.measured_at else None
        outcome = train_plan(plan, after_step=watch)
        if outcome.exit_code:
            raise KeyboardInterrupt
        figures = self._figures(folder)
        return {
            "figures": figures,
            "curve": [[step, agreement] for step, agreement in sorted(curve.items())],
            "seconds": round(time.perf_counter() - start, 2),
        }

    def _config(self, folder: Path) -> TrainConfig:
        options = self.options
        if self.init is not None:
            options |= {"init": self.init.student(folder)}
        return TrainConfig(
            shards=tuple(self.labels.tars(folder)),
            labels=self.labels.store(folder),
            output=self.student(folder),
            seed=self.seed,
            workers=1,
            pixel_cache_gb=1.0,
            device="cpu",
            # A measured curve has no gaps: such a run starts over.
            resume="never" if self.measured_at else "auto",
            checkpoint_every=_CHECKPOINT_STEPS,
            log_format="text",
            **options,
        )

    def _figures(self, folder: Path) -> dict[str, dict[str, float]]:
        student = self.options["student"]
        evaluation = evaluate(
            EvalConfig(
                student=self.student(folder),
                shards=tuple(self.truth.tars(folder)),
                labels=self.truth.store(folder),
                output=folder_of(self, folder) / "evaluation",
                factory=(student,) if ":" in student else (),
                batch_size=128,
                workers=1,
                device="cpu",
                log_format="text",
            )
        )
        return {
            role: {name: float(f.value) for name, f in found.items() if math.isfinite(f.value)}
            for role, found in evaluation.figures.items()
        }

    def _watch(
        self, plan: Plan, folder: Path, curve: dict[int, float]
    ) -> Callable[[int, nn.Module], None]:
        """Measure agreement with the judge now and then; the student stays as it was."""
        from softlabel.shards.store import open_store

        test = folder_of(Tars(data=self.data, pool=TEST), folder)
        images = np.load(test / "images.npy")[:_CURVE_IMAGES]
        store = open_store(self.truth.store(folder))
        tars = range(len(store.tars))
        said = [store.read(tar, ("topk_class",))["topk_class"][:, 0, 0] for tar in tars]
        teacher = np.concatenate(said)[: len(images)].astype(np.int64)
        normalise = Normaliser(plan.recipe, torch.device("cpu"), channels_last=True)

        def watch(step: int, student: nn.Module) -> None:
            if step in self.measured_at:
                curve[step] = float((_answers(student, images, normalise) == teacher).mean())

        return watch


def _answers(student: nn.Module, images: Any, normalise: Normaliser) -> Any:
    """[N] first classes."""
    student.eval()
    found = []
    with torch.inference_mode():
        for low in range(0, len(images), 256):
            pixels = torch.from_numpy(np.ascontiguousarray(images[low : low + 256]))
            found.append(student(normalise(pixels)).argmax(1).numpy())
    student.train()
    return np.concatenate(found)
