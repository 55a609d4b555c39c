"""The digits of scikit-learn, with the pools and sizes of the claims' own measurement."""

from functools import partial

import numpy as np

from softlabel.tools.experiments.data_sets import DataSet, Images, first_of_each_class
from softlabel.tools.realdata import digits
from softlabel.tools.realdata.collections import COLLECTIONS
from softlabel.tools.realdata.glyphs import letters

_SIDE = 8


def data_set() -> DataSet:
    """8 x 8 pixels, 797 test images; teachers trained here on 1,000 and on 200 of the others."""
    return DataSet(
        name="digits",
        title="digits of scikit-learn, 8 x 8",
        teachers={
            "teacher": digits.digits_teacher,
            "own": partial(digits.digits_teacher, 200, 0, half=0),
            "other": partial(digits.digits_teacher, 200, 1, half=1),
        },
        test=lambda: digits.load().test,
        pools={
            "letters": partial(COLLECTIONS["letters"], _SIDE, grey=True),
            "patches": partial(COLLECTIONS["patches"], _SIDE, grey=True),
            "noise": partial(COLLECTIONS["noise"], _SIDE, grey=True),
            "related": _digit_glyphs,
            "train": lambda: digits.load().train.images,
            "ten": lambda: first_of_each_class(digits.load().train, 10),
        },
        foreign=("letters", "patches", "noise"),
        everything=(),
        main="letters",
        mixture={"related": 1000, "letters": 2000, "patches": 13_000, "noise": 4000},
        student="softlabel.tools.experiments.students:digits_medium",
        training={
            "steps": 2000, "opt": "adamw", "lr": 3e-3, "weight_decay": 0.01, "sched": "onecycle",
            "kd_temperature": 4.0, "channels_last": True,
        },
        mixed_training={
            "steps": 3200, "opt": "adamw", "lr": 1e-3, "weight_decay": 0.01, "sched": "constant",
            "kd_temperature": 4.0, "channels_last": True,
        },
        temperatures=(1.0, 2.0, 4.0, 8.0),
        confidence=("p1", "entropy", "energy"),
        measured_at=(50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3200),
        binding=True,
    )  # fmt: skip


def _digit_glyphs() -> Images:
    """Printed digits: what the mixed pool has that is related to the written ones."""
    grey = letters(_SIDE, 1000, seed=1, characters="".join(digits.CLASS_NAMES))
    return np.repeat(grey[..., None], 3, axis=3)
