"""Arms of an experiment, each a name and its students, as tables and bars of kd-eval's figures."""

from collections.abc import Mapping, Sequence

from softlabel.tools.experiments.claims import Bars, Table, Unit, shown
from softlabel.tools.experiments.intervals import Spread, spread
from softlabel.tools.experiments.results import MissingError, Results
from softlabel.tools.experiments.run import Run

Arms = Mapping[str, Sequence[Run]]
"""A student a seed, by name of the arm."""

COLUMNS: Mapping[str, tuple[str, Unit]] = {
    "accuracy": ("accuracy", "share"),
    "share of teacher": ("share of the teacher's", "share"),
    "agreement": ("agreement", "share"),
    "kl": ("KL, nats", "number"),
    "tv": ("total variation", "number"),
    "ece": ("ECE", "share"),
    "conf_slope": ("slope", "number"),
}
"""Figure to heading and unit."""

SKIPPED = "skipped"


def all_runs(arms: Arms) -> list[Run]:
    """Every student of every arm."""
    return [run for arm in arms.values() for run in arm]


def figure_table(
    title: str, first: str, arms: Arms, results: Results, figures: Sequence[str], *, note: str = ""
) -> Table:
    """A row an arm: means over seeds with intervals; arms without results say `skipped`."""
    rows = []
    for name, runs in arms.items():
        try:
            cells = [
                shown(_figure(results, runs, figure), COLUMNS[figure][1]) for figure in figures
            ]
        except MissingError:
            cells = [SKIPPED, *[""] * (len(figures) - 1)]
        rows.append((name, *cells))
    head = (first, *(COLUMNS[figure][0] for figure in figures))
    return Table(title=title, head=head, rows=rows, note=note)


def figure_bars(title: str, arms: Arms, results: Results, figure: str) -> Bars:
    """A bar an arm; arms without results have none."""
    bars: dict[str, Spread] = {}
    for name, runs in arms.items():
        try:
            bars[name] = _figure(results, runs, figure)
        except MissingError:
            continue
    label, unit = COLUMNS[figure]
    return Bars(title=title, label=label, unit=unit, bars=bars)


def _figure(results: Results, runs: Sequence[Run], figure: str) -> Spread:
    if figure == "share of teacher":
        return spread(results.shares_of_teacher(runs))
    return spread(results.values(runs, figure))
