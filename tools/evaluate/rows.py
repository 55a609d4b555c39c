"""An evaluation's figures as rows of text, for every form of the result."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from softlabel.tools.evaluate.bootstrap import Figure
from softlabel.tools.evaluate.evaluation import Evaluation

NONE = "-"
DIFFERENCE = "student - control"

Unit = Literal["share", "number"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is measured, over how many images, and one cell a column."""

    title: str
    n: int
    cells: list[str]
    other_n: Mapping[str, int] = field(default_factory=dict)
    """Images of the roles that have another number of them than `n`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Rows that belong together."""

    title: str
    detail: str
    """With which settings they were made; may be empty."""
    rows: list[Row]
    meanings: list[tuple[str, str]]
    """What is measured, in words, and how."""


def columns(evaluation: Evaluation) -> list[str]:
    """The heads of a row's cells: the roles, and the difference where there is a control."""
    roles = evaluation.roles
    return [*roles, DIFFERENCE] if "control" in roles else roles


def row(
    evaluation: Evaluation,
    title: str,
    by_role: Mapping[str, Figure | None],
    *,
    unit: Unit,
    difference: Figure | None = None,
) -> Iterator[Row]:
    """One row, or none where no role has the figure."""
    figures = [by_role.get(role) for role in evaluation.roles]
    known = [figure for figure in figures if figure is not None]
    if not known:
        return
    cells = [shown(figure, unit=unit) for figure in figures]
    if "control" in evaluation.roles:
        cells.append(shown(difference, unit=unit, signed=True))
    n = known[0].n
    others = {
        role: figure.n
        for role, figure in zip(evaluation.roles, figures, strict=True)
        if figure is not None and figure.n != n
    }
    yield Row(title=title, n=n, cells=cells, other_n=others)


def shown(figure: Figure | None, *, unit: Unit, signed: bool = False) -> str:
    """A figure with its interval, as people read it."""
    if figure is None:
        return NONE
    sign = "+" if signed else ""
    if unit == "number":
        return f"{figure.value:{sign}.4f} [{figure.low:{sign}.4f}, {figure.high:{sign}.4f}]"
    value, low, high = 100 * figure.value, 100 * figure.low, 100 * figure.high
    percent = " pt" if signed else "%"
    return f"{value:{sign}.1f}{percent} [{low:{sign}.1f}, {high:{sign}.1f}]"


def counted(count: int, word: str) -> str:
    """1 image, 2 images."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def summary(evaluation: Evaluation) -> str:
    """What the figures are of."""
    targets = int((evaluation.images.target >= 0).sum())
    return (
        f"{counted(len(evaluation.images.target), 'image')} of "
        f"{counted(len(evaluation.labelled.urls), 'tar')}, "
        f"{f'{targets:,}' if targets else 'none'} with a target; in brackets 95 % intervals over "
        "images"
    )
