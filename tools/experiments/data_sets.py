"""What a data set gives to the experiments: images, teachers, a student and how it is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.realdata.split import Split

Images = NDArray[np.uint8]
"""[N, H, W, 3] RGB"""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set; all its loaders raise MachineError where a download does not work."""

    name: str
    title: str
    teachers: Mapping[str, Callable[[], Path]]
    """ONNX files by name; the first is the teacher of all experiments but fidelity."""
    test: Callable[[], Split]
    pools: Mapping[str, Callable[[], Images]]
    """Unlabelled images by name."""
    foreign: tuple[str, ...]
    """Pools without an image of the teacher's classes, the most promising first."""
    everything: tuple[str, ...]
    """Foreign pools that make the pool of all of them mixed; empty for none."""
    main: str
    """The foreign pool for comparisons of temperature, tail rules and shuffled labels."""
    mixture: Mapping[str, int]
    """The mixed pool: images of each pool, related ones first, then by how related they look."""
    student: str
    """--student."""
    training: Mapping[str, Any]
    """TrainConfig's fields of a run to the end."""
    mixed_training: Mapping[str, Any]
    """Those of a run over the mixed pool, at a constant rate."""
    temperatures: tuple[float, ...]
    confidence: tuple[str, ...]
    """Scores by which confidence weighting is tried."""
    measured_at: tuple[int, ...]
    """Steps of a mixed run after which agreement is measured."""
    binding: bool
    """Whether the bounds are this data set's own, so that the verdict says reproduced or not."""

    @property
    def teacher(self) -> str:
        """The name of the teacher of all experiments but fidelity."""
        return next(iter(self.teachers))


def data_set(name: str) -> DataSet:
    """The data set of that name: digits, mnist or cifar10."""
    from softlabel.tools.experiments import on_cifar10, on_digits, on_mnist

    known = {
        "digits": on_digits.data_set,
        "mnist": on_mnist.data_set,
        "cifar10": on_cifar10.data_set,
    }
    return known[name]()


def first_of_each_class(split: Split, per_class: int) -> Images:
    """The first images of each class, in the order of the split; their classes are dropped."""
    places = [np.flatnonzero(split.targets == c)[:per_class] for c in np.unique(split.targets)]
    return split.images[np.sort(np.concatenate(places))]
