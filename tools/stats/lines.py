"""Statistics of sources as lines for a terminal: one table, one line a source."""

from collections.abc import Callable, Iterator, Sequence

from softlabel.tools.stats.collect import Collection
from softlabel.tools.stats.findings import shown, tail_temperature
from softlabel.tools.stats.source import SourceStatistics

_MOST_LINES = 40


def cells(collection: Collection, class_name: Callable[[int], str]) -> list[list[str]]:
    """Head and one row a source, as text, for every kind of table.

    Two tails at most, for terminals and pages are narrow: JSON has them all.
    """
    stored = collection.manifest.temperatures
    tails = [f"{t:g}" for t in sorted({min(stored), tail_temperature(stored)})]
    head = ["source", "images", "classes", "p1", "entropy", "energy", "p1>.999"]
    head += [f"tail T={t}" for t in tails]
    head += ["copies", "elsewhere", "bad", "most frequent"]
    return [head, *(_row(source, tails, class_name) for source in collection.sources)]


def _row(
    source: SourceStatistics, tails: Sequence[str], class_name: Callable[[int], str]
) -> list[str]:
    about = "" if source.duplicates_exact else "~"
    row = [
        source.name,
        f"{source.labelled:,}",
        f"{source.effective_classes:.1f}",
        *(_number(source.mean(name)) for name in ("p1", "entropy", "energy")),
        f"{source.saturated_share:.1%}" if source.labels else "-",
        *(_share(source.mean(f"tail at {t}")) for t in tails),
        f"{about}{source.duplicate_share:.1%}" if source.labelled else "-",
        f"{about}{source.shared_share:.1%}" if source.labelled else "-",
        f"{source.bad:,}",
    ]
    if source.most_frequent:
        number, count = source.most_frequent[0]
        return [*row, f"{class_name(number)} {count / source.labelled:.0%}"]
    return [*row, "-"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def source_lines(collection: Collection, class_name: Callable[[int], str]) -> Iterator[str]:
    """The table, the most effective classes first, and what its figures are of."""
    if not collection.sources:
        yield "sources    none: no tar is labelled yet"
        return
    by = shown(str(collection.by))
    yield f"sources    by {by}, the most effective classes first; means over all labels"
    rows = [[shown(cell) for cell in row] for row in cells(collection, class_name)]
    rows, more = rows[: _MOST_LINES + 1], len(rows) - 1 - _MOST_LINES
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        middle = (cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True))
        yield "  ".join(["  " + row[0].ljust(widths[0]), *middle, row[-1]])
    if more > 0:
        yield f"  and {more:,} more sources; --json has them"
    if not all(source.quantiles_exact for source in collection.sources):
        yield "  quantiles of the largest sources (--json, --html) are of a sample, by key hash"
    if not collection.whole.duplicates_exact:
        yield "  copies are estimated from a part of all image hashes"
