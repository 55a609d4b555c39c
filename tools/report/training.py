"""The course of training from kd-train's metrics.csv, of one or several students."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from softlabel.tools.report.figures import Series, curves
from softlabel.tools.report.page import Markup

_PANELS = {"loss": "loss, nats", "agreement": "agreement"}
_X = "images"


def training_curves(files: Mapping[str, Path]) -> Markup | None:
    """Loss and agreement over the images seen, one line a student; None if no file has two rows."""
    runs = {name: found for name, path in files.items() if len(found := read_metrics(path)[_X]) > 1}
    if not runs:
        return None
    columns = {name: read_metrics(files[name]) for name in runs}
    panels: dict[str, dict[str, Series]] = {
        label: {name: (found[_X], found[column]) for name, found in columns.items()}
        for column, label in _PANELS.items()
    }
    return curves(panels, x_label="images trained on", percent=["agreement"])


def read_metrics(path: Path) -> dict[str, list[float]]:
    """A metrics.csv by column; empty columns where there is no such file or it is torn."""
    columns: dict[str, list[float]] = {name: [] for name in (_X, *_PANELS)}
    if not path.is_file():
        return columns
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                values = {name: float(row[name]) for name in columns}
            except (KeyError, TypeError, ValueError):
                continue
            if all(map(math.isfinite, values.values())):
                for name, value in values.items():
                    columns[name].append(value)
    return columns
