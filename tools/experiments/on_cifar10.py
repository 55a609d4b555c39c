"""CIFAR-10 with a published teacher, and collections of drawings, emoji and photographs."""

from functools import partial

import numpy as np

from softlabel.tools.experiments.data_sets import DataSet, Images, first_of_each_class
from softlabel.tools.realdata import cifar10, teachers
from softlabel.tools.realdata.collections import COLLECTIONS
from softlabel.tools.realdata.split import Split

_SIDE = 32


def data_set() -> DataSet:
    """32 x 32 pixels, 10,000 test images; the teacher has 82.24 %."""
    pools = ("openclipart", "tuxpaint", "emoji", "wallpapers")
    return DataSet(
        name="cifar10",
        title="CIFAR-10, 32 x 32",
        teachers={"teacher": partial(teachers.cifar10_resnet, say=_quiet)},
        test=lambda: _load("test"),
        pools={
            **{name: partial(_collection, name) for name in (*pools, "noise")},
            "related": partial(_some_of_train, 1000),
            "ten": lambda: first_of_each_class(_load("train"), 10),
        },
        foreign=("wallpapers", "openclipart", "tuxpaint", "emoji", "noise"),
        everything=pools,
        main="openclipart",
        mixture={
            "related": 1000, "wallpapers": 4000, "openclipart": 6000, "emoji": 3000, "noise": 4000
        },
        student="softlabel/small-cnn",
        training={
            "steps": 1250, "opt": "sgd", "lr": 0.1, "weight_decay": 5e-4, "sched": "onecycle",
            "kd_temperature": 4.0, "channels_last": True, "augment": "none",
        },
        mixed_training={
            "steps": 3200, "opt": "adamw", "lr": 1e-3, "weight_decay": 0.01, "sched": "constant",
            "kd_temperature": 4.0, "channels_last": True,
        },
        temperatures=(1.0, 2.0, 4.0, 8.0),
        confidence=("p1",),
        measured_at=(100, 200, 400, 800, 1600, 2400, 3200),
        binding=False,
    )  # fmt: skip


def _load(part: str) -> Split:
    split: Split = getattr(cifar10.load(say=_quiet), part)
    return split


def _collection(name: str) -> Images:
    return COLLECTIONS[name](_SIDE, say=_quiet)


def _some_of_train(count: int) -> Images:
    images = _load("train").images
    return images[np.random.default_rng(0).permutation(len(images))[:count]]


def _quiet(_: str) -> None:
    """Downloads say nothing: the experiment has a line of its own."""
