"""The result on standard output: one table, roles side by side, figures in groups."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from softlabel.tools.evaluate.evaluation import Evaluation
from softlabel.tools.evaluate.groups import groups
from softlabel.tools.evaluate.rows import columns, summary


def print_result(evaluation: Evaluation, written: Sequence[Path], *, as_json: bool) -> None:
    """The table and where more is to be found; or one JSON object."""
    if as_json:
        print(json.dumps(evaluation.to_dict(), allow_nan=False))
        return
    print(*lines(evaluation), sep="\n")
    print(f"written: {', '.join(map(str, written))}")


def lines(evaluation: Evaluation) -> Iterator[str]:
    """The table, line by line."""
    found = groups(evaluation)
    rows = [[row.title, *row.cells, f"{row.n:,}"] for group in found for row in group.rows]
    table = [["", *columns(evaluation), "n"], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    # Titles of groups stand above their rows, which are set in.
    yield _line(table[0], widths)
    for group in found:
        yield f"{group.title} ({group.detail})" if group.detail else group.title
        for row in group.rows:
            yield _line([row.title, *row.cells, f"{row.n:,}"], widths)
            if row.other_n:
                said = ", ".join(f"{role} {n:,}" for role, n in row.other_n.items())
                yield f"    n of others: {said}"
    yield summary(evaluation)
    for note in evaluation.notes:
        yield f"note: {note}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (cell.ljust(width) for cell, width in zip(cells[:-1], widths[:-1], strict=True))
    return "  ".join([f"  {first}", *rest, cells[-1].rjust(widths[-1])])
