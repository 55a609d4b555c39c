"""The result on standard output: one table, roles side by side."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from softlabel.tools.evaluate.bootstrap import Figure
from softlabel.tools.evaluate.evaluation import Evaluation

ROWS = {
    "accuracy": "top-1 accuracy",
    "accuracy_top5": "top-5 accuracy",
    "agreement": "agreement with the teacher",
    "kl": "KL(teacher || model), nats",
    "ece": "calibration error (ECE)",
    "confidence": "mean confidence",
}
NONE = "-"


def print_result(evaluation: Evaluation, written: Sequence[Path], *, as_json: bool) -> None:
    """The table and where more is to be found; or one JSON object."""
    if as_json:
        print(json.dumps(evaluation.to_dict()))
        return
    print(*lines(evaluation), sep="\n")
    print(f"written: {', '.join(map(str, written))}")


def lines(evaluation: Evaluation) -> Iterator[str]:
    """The table, line by line."""
    table = [["", *evaluation.roles], *cells(evaluation)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        first, *rest = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join([first, *rest]).rstrip()
    yield summary(evaluation)
    for note in evaluation.notes:
        yield f"note: {note}"


def cells(evaluation: Evaluation) -> list[list[str]]:
    """Rows of the table: what is measured, then one cell a role."""
    rows = []
    for name, title in ROWS.items():
        figures = [evaluation.figures[role].get(name) for role in evaluation.roles]
        if any(figures):
            rows.append([title, *(shown(name, figure) for figure in figures)])
    return rows


def shown(name: str, figure: Figure | None) -> str:
    """A figure with its interval, as people read it."""
    if figure is None:
        return NONE
    if name == "kl":
        return f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"
    return f"{figure.value:.1%} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def summary(evaluation: Evaluation) -> str:
    """What the figures are of."""
    targets = int((evaluation.images.target >= 0).sum())
    return (
        f"{len(evaluation.images.target):,} images of {len(evaluation.labelled.urls):,} tar(s), "
        f"{targets:,} with a target; in brackets 95 % intervals over images"
    )
