"""registers.csv: what every shipped configuration compiled to when it was last looked at."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from softlabel.tools.compile_gate.report import Report

_TOLERANCE = 10
"""Percent by which registers may move before somebody has to look."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration's line."""

    triton: str
    arch: str
    dtype: str
    variant: str
    registers: int
    spills: int
    """Bytes, stored and loaded."""
    shared: int
    """Bytes a block."""
    ld128: int
    st128: int
    ex2: int

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it within one version of triton."""
        return self.arch, self.dtype, self.variant


def row(triton: str, arch: int, dtype: str, variant: str, report: Report) -> Row:
    """A report as its line."""
    return Row(
        triton=triton,
        arch=f"sm_{arch}",
        dtype=dtype,
        variant=variant,
        registers=report.registers,
        spills=report.spill_stores + report.spill_loads,
        shared=report.shared,
        ld128=report.wide(report.loads),
        st128=report.wide(report.stores),
        ex2=report.ex2,
    )


def read(path: Path) -> dict[tuple[str, str, str], Row]:
    """The lines by key; none if there is no file."""
    if not path.exists():
        return {}
    numbers = {field.name for field in fields(Row) if field.type is int}
    lines: list[Row] = []
    with path.open(newline="") as file:
        for texts in csv.DictReader(file):
            values: dict[str, Any] = {k: int(v) if k in numbers else v for k, v in texts.items()}
            lines.append(Row(**values))
    return {line.key: line for line in lines}


def write(path: Path, rows: Sequence[Row]) -> None:
    """Replace the file."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        table.writeheader()
        table.writerows(map(asdict, rows))


def differences(new: Row, known: Mapping[tuple[str, str, str], Row]) -> Iterator[str]:
    """What about a line needs a look, or a new table."""
    old = known.get(new.key)
    if old is None:
        yield "not in the table"
        return
    moved = new.registers - old.registers
    if 100 * abs(moved) > _TOLERANCE * old.registers:
        yield f"registers {old.registers} -> {new.registers} ({moved / old.registers:+.0%})"
    for name in ("ld128", "st128"):
        before, now = getattr(old, name), getattr(new, name)
        if now < before:
            yield f"{name} {before} -> {now}"
