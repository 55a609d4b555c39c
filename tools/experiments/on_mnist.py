"""MNIST with a published teacher, and collections of clothes, drawings, emoji and photographs."""

from functools import partial

import numpy as np

from softlabel.tools.experiments.data_sets import DataSet, Images, first_of_each_class
from softlabel.tools.realdata import mnist, teachers
from softlabel.tools.realdata.collections import COLLECTIONS
from softlabel.tools.realdata.split import Split

_SIDE = 28
_MOST = 20_000
_DRAWINGS = ("openclipart", "tuxpaint", "emoji")


def data_set() -> DataSet:
    """28 x 28 pixels, 10,000 test images; the teacher has 99.05 %."""
    pools = ("fashion-mnist", "letters", *_DRAWINGS, "wallpapers")
    return DataSet(
        name="mnist",
        title="MNIST, 28 x 28",
        teachers={"teacher": partial(teachers.mnist_cnn, say=_quiet)},
        test=lambda: _load("test"),
        pools={
            **{name: partial(_collection, name) for name in (*pools, "noise")},
            "related": partial(_some_of_train, 1000),
            "ten": lambda: first_of_each_class(_load("train"), 10),
        },
        foreign=("letters", "fashion-mnist", *_DRAWINGS, "wallpapers", "noise"),
        everything=pools,
        main="letters",
        mixture={"related": 1000, "letters": 2000, "fashion-mnist": 13_000, "noise": 4000},
        student="softlabel.tools.experiments.students:mnist_small",
        training={
            "steps": 1000, "opt": "adamw", "lr": 3e-3, "weight_decay": 0.01, "sched": "onecycle",
            "kd_temperature": 4.0, "channels_last": True,
        },
        mixed_training={
            "steps": 1600, "opt": "adamw", "lr": 1e-3, "weight_decay": 0.01, "sched": "constant",
            "kd_temperature": 4.0, "channels_last": True,
        },
        temperatures=(1.0, 2.0, 4.0, 8.0),
        confidence=("p1",),
        measured_at=(25, 50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600),
        binding=False,
    )  # fmt: skip


def _load(part: str) -> Split:
    split: Split = getattr(mnist.load(say=_quiet), part)
    return split


def _collection(name: str) -> Images:
    """Grey; drawings on white are turned into light ones on black, as MNIST's digits are."""
    images = COLLECTIONS[name](_SIDE, grey=True, say=_quiet)
    if name in _DRAWINGS:
        images = 255 - images
    if len(images) <= _MOST:
        return images
    return images[np.random.default_rng(0).permutation(len(images))[:_MOST]]


def _some_of_train(count: int) -> Images:
    images = _load("train").images
    return images[np.random.default_rng(0).permutation(len(images))[:count]]


def _quiet(_: str) -> None:
    """Downloads say nothing: the experiment has a line of its own."""
