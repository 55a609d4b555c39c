"""What students are trained on: tars of the pools, and the teachers' labels of them, each once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softlabel.labeler.config import LabelConfig
from softlabel.labeler.run import label
from softlabel.shards.errors import MachineError
from softlabel.tools.experiments.data_sets import data_set
from softlabel.tools.experiments.shuffled import write_shuffled
from softlabel.tools.experiments.tasks import Result, Task, folder_of
from softlabel.tools.realdata.image_tars import write_tars

TEST = "test"
"""The pool of test images, the only one with classes."""

IMAGES_A_TAR = 1000
ALL_CLASSES = 1000
_BATCH = "128"
_SHUFFLE_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Tars:
    """The tars of one pool: IMAGES_A_TAR images each, in a random order that is always the same."""

    data: str
    pool: str

    @property
    def title(self) -> str:
        """For the progress line."""
        return f"{self.data}: images of {self.pool}"

    @property
    def cost(self) -> float:
        """In steps of a digits student."""
        return 300.0

    def settings(self) -> Mapping[str, Any]:
        """What decides the tars."""
        return {"data": self.data, "pool": self.pool, "images_a_tar": IMAGES_A_TAR}

    def needs(self) -> Sequence[Task]:
        """Nothing."""
        return ()

    def execute(self, folder: Path) -> Result:
        """Write the tars; MachineError where the images can't be had."""
        described = data_set(self.data)
        targets = None
        if self.pool == TEST:
            split = described.test()
            images, targets = split.images, split.targets
        else:
            images = described.pools[self.pool]()
            images = images[np.random.default_rng(0).permutation(len(images))]
        path = folder_of(self, folder)
        num_tars = max(1, len(images) // IMAGES_A_TAR)
        tars = write_tars(
            images, targets, path, prefix=self.pool, num_tars=num_tars, key_prefix=self.pool
        )
        if self.pool == TEST:
            np.save(path / "images.npy", images)
        return {"images": len(images), "tars": [tar.name for tar in tars]}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What a teacher says of some pools, in one store."""

    data: str
    teacher: str
    pools: tuple[tuple[str, int | None], ...]
    """Names, each with how many of its images, in whole tars; None is all."""
    top_k: int = ALL_CLASSES
    shuffled: bool = False
    """Whether every image has the label of another one, drawn at random."""

    @property
    def title(self) -> str:
        """For the progress line."""
        names = "+".join(name for name, _ in self.pools)
        kind = f" top {self.top_k}" if self.top_k != ALL_CLASSES else ""
        return f"{self.data}: labels of {names} by {self.teacher}{kind}" + (
            ", shuffled" if self.shuffled else ""
        )

    @property
    def cost(self) -> float:
        """In steps of a digits student."""
        return 300.0

    def settings(self) -> Mapping[str, Any]:
        """What decides the labels."""
        return {
            "data": self.data,
            "teacher": self.teacher,
            "pools": [list(part) for part in self.pools],
            "top_k": self.top_k,
            "shuffled": self.shuffled,
        }

    def needs(self) -> Sequence[Task]:
        """The tars; for shuffled labels the true ones."""
        tars = [Tars(data=self.data, pool=name) for name, _ in self.pools]
        return [*tars, self._true()] if self.shuffled else tars

    def _true(self) -> "Labels":
        return Labels(data=self.data, teacher=self.teacher, pools=self.pools, top_k=self.top_k)

    def tars(self, folder: Path) -> list[str]:
        """The tars that are labelled."""
        found: list[str] = []
        for name, count in self.pools:
            path = folder_of(Tars(data=self.data, pool=name), folder)
            files = sorted(map(str, path.glob(f"{name}-[0-9]*.tar")))
            found += files if count is None else files[: math.ceil(count / IMAGES_A_TAR)]
        return found

    def store(self, folder: Path) -> Path:
        """Where the store is."""
        return folder_of(self, folder) / "store"

    def execute(self, folder: Path) -> Result:
        """Label the tars; MachineError where the teacher can't be had."""
        if self.shuffled:
            rows = write_shuffled(
                self._true().store(folder), self.store(folder), seed=_SHUFFLE_SEED
            )
            return {"images": rows}
        outcome = label(
            LabelConfig(
                teacher=data_set(self.data).teachers[self.teacher](),
                shards=tuple(self.tars(folder)),
                out=self.store(folder),
                top_k=self.top_k,
                decoder="pillow",
                providers="cpu",
                batch_size=_BATCH,
                workers=1,
                log_format="text",
            )
        )
        if outcome.exit_code:
            raise MachineError(f"{self.title}: {outcome.verdict()}")
        return {"images": outcome.members}
