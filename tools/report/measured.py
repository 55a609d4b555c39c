"""Measured figures as drawings: means with their intervals, and agreement over steps."""

from collections.abc import Mapping

import numpy as np

from softlabel.tools.report.figures import (
    _WIDE,
    Series,
    _drawing,
    _percent,
    _shortened,
    _svg,
    colour_of,
)
from softlabel.tools.report.page import Markup

_COLOURS = 4
"""Those of other series; then they come again, dashed."""


def interval_bars(bars: Mapping[str, tuple[float, float]], *, label: str, percent: bool) -> Markup:
    """A horizontal bar for each (mean, half width of its interval); a half of 0 draws no line."""
    place = np.arange(len(bars))
    mean, half = np.array(list(bars.values()), np.float64).reshape(-1, 2).T
    with _drawing(_WIDE, 0.9 + 0.24 * len(bars)) as (drawing, axes):
        axes.barh(place, mean, 0.72, color=colour_of("student", 0), alpha=0.75)
        known = half > 0
        axes.errorbar(
            mean[known], place[known], xerr=half[known], fmt="none", ecolor="#d9731a", capsize=2
        )
        axes.set_yticks(place, [_shortened(name) for name in bars])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        if percent:
            _percent(axes.xaxis)
        return _svg(drawing, f"{label}, with intervals")


def step_curves(series: Mapping[str, Series], *, label: str) -> Markup:
    """Shares over steps on a logarithmic axis, a line with marks for each name."""
    with _drawing(_WIDE, 3.0) as (drawing, axes):
        for number, (name, (x, y)) in enumerate(series.items()):
            colour = colour_of(name, number)
            style = "-" if number < _COLOURS else "--"
            axes.plot(x, y, style, color=colour, marker="o", markersize=2.5, label=name)
        ticks = sorted({step for x, _ in series.values() for step in x})
        axes.set_xscale("log")
        # Every other one, from the last: all of them would run into each other.
        axes.set_xticks(ticks[::-2], [f"{step:,.0f}" for step in ticks[::-2]])
        axes.minorticks_off()
        axes.set(xlabel="steps", ylabel=label)
        _percent(axes.yaxis)
        axes.legend()
        return _svg(drawing, f"{label} over steps")
