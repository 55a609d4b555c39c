"""Distributions of several series in one drawing, in colours of their own."""

from collections.abc import Mapping, Sequence

import numpy as np

from softlabel.tools.report.figures import Floats, _drawing, _percent, _shortened, _svg
from softlabel.tools.report.page import Markup

COLOURS = (
    "#3b82c4",
    "#d97a1e",
    "#3a9d5d",
    "#a35bb8",
    "#c9505c",
    "#8f7a2e",
    "#2f9c9c",
    "#7d8794",
)
"""Tones that stand out from white and from black paper alike."""

MOST_SERIES = len(COLOURS)

_TICKS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


def step_histograms(
    values: Mapping[str, Floats],
    *,
    label: str,
    bins: int = 30,
    span: tuple[float, float] | None = None,
    percent: bool = False,
) -> Markup:
    """Overlaid steps: for each series the share of its own values in bins that all series share.

    The height is the square root of the share.

    Args:
        values: name to [n] finite values; at most `MOST_SERIES` have colours of their own.
        label: of the x axis, with its unit.
        bins: of equal width.
        span: left and right end; None: from the least to the largest value.
        percent: the values are shares.
    """
    left, right = span or _span(values)
    edges = np.linspace(left, right, bins + 1)
    with _drawing(4.2, 2.3 + 0.16 * ((len(values) + 1) // 2)) as (drawing, axes):
        for number, (name, found) in enumerate(values.items()):
            share = np.histogram(np.clip(found, left, right), edges)[0] / max(len(found), 1)
            colour = COLOURS[number % MOST_SERIES]
            axes.stairs(share, edges, color=colour, linewidth=1.6, label=_shortened(name))
        axes.set(xlim=(left, right), xlabel=label, ylabel="share of labels")
        # One source on one value would flatten all others: the height is the root of the share.
        axes.set_yscale("function", functions=(_root, np.square))
        axes.set_ylim(bottom=0)
        axes.set_yticks([tick for tick in _TICKS if tick <= axes.get_ylim()[1]])
        _percent(axes.yaxis)
        if percent:
            _percent(axes.xaxis)
        if len(values) > 1:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)
        return _svg(drawing, f"distribution of {label}")


def bars(
    names: Sequence[str], values: Sequence[float], *, title: str, label: str, colour: str
) -> Markup:
    """Horizontal bars of shares, one a name, from 0 to the largest."""
    place = np.arange(len(names))
    with _drawing(3.0, 0.8 + 0.2 * len(names)) as (drawing, axes):
        axes.barh(place, values, 0.76, color=colour)
        axes.set_yticks(place, [_shortened(name, 20) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, max([*values, 0.01]) * 1.05)
        axes.set_xlabel(label)
        axes.set_title(_shortened(title), fontsize=10)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        _percent(axes.xaxis)
        return _svg(drawing, f"{label}, {title}")


def _root(share: Floats) -> Floats:
    return np.sqrt(np.maximum(share, 0))


def _span(values: Mapping[str, Floats]) -> tuple[float, float]:
    """From the least to the largest value, wide enough to be drawn."""
    ends = [end for found in values.values() if len(found) for end in (found.min(), found.max())]
    left, right = (float(min(ends)), float(max(ends))) if ends else (0.0, 1.0)
    return (left, right) if right - left > 1e-9 else (left - 0.5, right + 0.5)
