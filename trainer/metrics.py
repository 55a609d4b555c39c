"""metrics.csv: how training goes, one row every so many steps, each step in one row only."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from softlabel.shards import durable

FILE = "metrics.csv"


@dataclass(frozen=True, kw_only=True)
class Row:
    """Means since the row before."""

    step: int
    """Steps done."""
    epoch: float
    """Passes over the images done."""
    images: int
    """Images trained on so far, over all runs."""
    loss: float
    kd_loss: float
    """KL(teacher || student) in nats, times T**2."""
    task_loss: float
    """Cross-entropy with the tars' own labels, in nats."""
    agreement: float
    """Share of training images on which student and teacher have the same first class."""
    lr: float
    """Of the last step."""
    images_per_s: float
    data_wait: float
    """Share of the time in which the loop waited for images."""


COLUMNS = tuple(field.name for field in fields(Row))


class MetricsFile:
    """Appends rows; what a killed run wrote after its last checkpoint is cut off first."""

    def __init__(self, path: Path, *, step: int) -> None:
        kept = [",".join(COLUMNS)]
        if step and path.is_file():
            for line in path.read_text(encoding="utf-8").split("\n")[1:-1]:
                number = line.partition(",")[0]
                if number.isdigit() and int(number) <= step:
                    kept.append(line)
        durable.replace_all({path: ("\n".join(kept) + "\n").encode()})
        self._path = path

    def append(self, row: Row) -> None:
        """Write one row."""
        values = (getattr(row, name) for name in COLUMNS)
        line = ",".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class Meter:
    """Gathers sums on the student's device; reads them back only when a row is due."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, device=device)
        self._weight = 0.0
        self._start = time.perf_counter()
        self._waited_s = 0.0

    def add(self, sums: Tensor, weight: float) -> None:
        """Sums of KL, cross-entropy and agreement over a batch, and its weight."""
        self._sums += sums
        self._weight += weight

    def means(self, *, waited_s: float) -> Mapping[str, float]:
        """Means since the last call; `waited_s` counts from the beginning of the run."""
        kd_loss, task_loss, agreement = (self._sums / max(self._weight, 1.0)).tolist()
        now = time.perf_counter()
        seconds = max(now - self._start, 1e-9)
        found = {
            "kd_loss": kd_loss,
            "task_loss": task_loss,
            "agreement": agreement,
            "images_per_s": self._weight / seconds,
            "data_wait": (waited_s - self._waited_s) / seconds,
        }
        self._sums.zero_()
        self._weight, self._start, self._waited_s = 0.0, now, waited_s
        return found


def last_row(path: Path) -> dict[str, str]:
    """The last row as it stands in the file; empty if there is none."""
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1]
    return dict(zip(COLUMNS, lines[-1].split(","), strict=True)) if lines else {}
