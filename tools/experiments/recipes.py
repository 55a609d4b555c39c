"""Figures of the summaries inside a page that is written by hand: docs/recipes.md."""

import re
from collections.abc import Sequence

from softlabel.shards.errors import UsageError
from softlabel.tools.experiments.claims import shown
from softlabel.tools.experiments.intervals import Spread
from softlabel.tools.experiments.summary import Summary

_PLACE = re.compile(r"<!--([^<>]+?)-->(.*?)<!---->", re.DOTALL)
_UNKNOWN = "not measured yet"


def filled(text: str, summaries: Sequence[Summary]) -> str:
    """The page with its figures as they are now.

    A figure stands between `<!--NAME-->` and `<!---->`, where NAME is DATA/CLAIM, or
    DATA/EXPERIMENT/ROW/COLUMN for a cell of one of its tables. What was not measured says so.

    Raises:
        UsageError: a name of another form.
    """
    by_data = {summary.data: summary for summary in summaries}

    def figure(match: re.Match[str]) -> str:
        name = match.group(1)
        data, *rest = name.split("/")
        if len(rest) not in (1, 3):
            raise UsageError(f"recipes: wanted DATA/CLAIM or DATA/EXPERIMENT/ROW/COLUMN: {name}")
        summary = by_data.get(data)
        found = None
        if summary is not None:
            found = _claim(summary, rest[0]) if len(rest) == 1 else _cell(summary, *rest)
        return f"<!--{name}-->{found or _UNKNOWN}<!---->"

    return _PLACE.sub(figure, text)


def _claim(summary: Summary, name: str) -> str | None:
    for part in summary.parts.values():
        for claim in part.findings["claims"]:
            if claim["name"] == name:
                return shown(Spread(**claim["figure"]), claim["unit"])
    return None


def _cell(summary: Summary, experiment: str, row: str, column: str) -> str | None:
    if experiment not in summary.parts:
        return None
    for table in summary.parts[experiment].findings["tables"]:
        if column in table["head"]:
            for cells in table["rows"]:
                if cells[0] == row:
                    return str(cells[list(table["head"]).index(column)]) or None
    return None
