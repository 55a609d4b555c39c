"""Drawings as inline SVG: text stays text, and colours follow the page's light or dark style."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.report.page import Markup, text

PALETTE = {"student": "#1f77b4", "teacher": "#d9731a", "control": "#2a9d5c"}
"""Role to colour; the page's style has a lighter tone of each for dark windows."""

_OTHERS = ("#8456b8", "#c44e52", "#8c6d46", "#6b7785")
_INK, _SOFT, _LINE = "#010203", "#040506", "#070809"
"""Stand-ins that become the page's own colours."""

_WIDE, _SQUARE = 5.0, 2.8
"""Inches, at most what a phone shows without making the text too small to read."""

Floats = NDArray[np.float64]
Series = tuple[Sequence[float], Sequence[float]]


@contextmanager
def _drawing(width: float, height: float, *, rows: int = 1) -> Iterator[tuple[Any, Any]]:
    """A matplotlib figure in house style, inches; no pyplot, hence no state left behind."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "softlabel",
            "font.size": 9,
            "font.family": "sans-serif",
            "text.color": _INK,
            "axes.edgecolor": _SOFT,
            "axes.labelcolor": _INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": _LINE,
            "grid.linewidth": 0.6,
            "xtick.color": _SOFT,
            "ytick.color": _SOFT,
            "xtick.labelcolor": _INK,
            "ytick.labelcolor": _INK,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
        }
    ):
        drawing = Figure(figsize=(width, height), layout="constrained")
        axes = drawing.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
        yield drawing, axes if rows > 1 else axes[0]


_VARIABLES = {
    _INK: "currentColor",
    _SOFT: "var(--soft)",
    _LINE: "var(--line)",
    **{colour: f"var(--{role})" for role, colour in PALETTE.items()},
}


def _svg(drawing: Any, label: str) -> Markup:
    """The figure as an <svg> element with no address in it and ids that no other figure has."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        # Names in any script: only their width is guessed here, the reader's fonts draw them.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        drawing.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    markup = buffer.getvalue()
    markup = markup[markup.index("<svg") :]
    markup = re.sub(r' xmlns(:\w+)?="[^"]*"', "", markup).replace("xlink:href", "href")
    markup = re.sub(r"<!--.*?-->\s*", "", markup, flags=re.DOTALL)
    own = sha256(markup.encode()).hexdigest()[:8]
    markup = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", markup)
    for colour, variable in _VARIABLES.items():
        markup = markup.replace(colour, variable)
    # The page's fonts, not those that matplotlib looked for; and no style that leaves the figure.
    markup = re.sub(r"font-family: [^;]*;", "font-family: inherit;", markup)
    markup = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", markup, flags=re.DOTALL)
    width = 7.2 * drawing.get_figwidth()
    opening = f'<svg role="img" aria-label="{text(label)}" style="max-width: {width:.3g}rem"'
    return Markup(markup.replace("<svg", opening, 1).strip())


def colour_of(name: str, number: int) -> str:
    """A role's colour, or one for the number-th other series."""
    return PALETTE.get(name, _OTHERS[number % len(_OTHERS)])


def curves(
    panels: Mapping[str, Mapping[str, Series]], *, x_label: str, percent: Sequence[str] = ()
) -> Markup:
    """Lines over one x axis: panels by y label, one below the other, each with series by name.

    Args:
        panels: y label to name to (x, y); the same name has the same colour everywhere.
        x_label: with its unit.
        percent: the y labels whose values are shares.
    """
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    with _drawing(_WIDE, 0.6 + 1.4 * len(panels), rows=len(panels)) as (drawing, found):
        rows = found if len(panels) > 1 else [found]
        for axes, (y_label, series) in zip(rows, panels.items(), strict=True):
            for name, (x, y) in series.items():
                axes.plot(x, y, color=colour_of(name, names.index(name)), label=name)
            axes.set_ylabel(y_label)
            if y_label in percent:
                _percent(axes.yaxis)
        rows[-1].set_xlabel(x_label)
        rows[-1].xaxis.set_major_formatter("{x:,.0f}")
        if len(names) > 1:
            rows[0].legend()
        return _svg(drawing, f"{', '.join(panels)} over {x_label}")


def reliability_diagram(
    name: str, *, confidence: Floats, accuracy: Floats, count: NDArray[np.int64]
) -> Markup:
    """Accuracy over confidence in bins of equal width [B]; on the diagonal both are equal."""
    filled = count > 0
    width = 1 / len(count)
    middle = (np.arange(len(count)) + 0.5) * width
    colour = colour_of(name, 0)
    with _drawing(_SQUARE, _SQUARE) as (drawing, axes):
        axes.bar(middle[filled], accuracy[filled], width * 0.92, color=colour, alpha=0.35)
        axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle="--")
        size = 12 + 60 * count[filled] / max(count.max(), 1)
        axes.scatter(confidence[filled], accuracy[filled], size, color=colour, linewidths=0)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        axes.set(xlabel="confidence", ylabel="accuracy")
        _percent(axes.xaxis)
        _percent(axes.yaxis)
        axes.set_title(name, fontsize=10)
        return _svg(drawing, f"accuracy over confidence of the {name}")


def scatter(
    name: str,
    *,
    x: Floats,
    y: Floats,
    line: tuple[float, float] | None,
    x_label: str,
    y_label: str,
) -> Markup:
    """Points [N], the diagonal on which both are equal, and perhaps a line (slope, at zero)."""
    colour = colour_of(name, 0)
    ends = np.array([min(x.min(), y.min()), max(x.max(), y.max())])
    with _drawing(_SQUARE, _SQUARE) as (drawing, axes):
        axes.plot(ends, ends, color=_SOFT, linewidth=1, linestyle="--")
        axes.scatter(x, y, 5, color=colour, alpha=0.35, linewidths=0)
        if line is not None:
            span = np.array([x.min(), x.max()])
            axes.plot(span, line[0] * span + line[1], color=colour)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_title(name, fontsize=10)
        return _svg(drawing, f"{y_label} over {x_label} of the {name}")


def roc_curves(series: Mapping[str, Series]) -> Markup:
    """Receiver operating curves by name: (false positive rate, true positive rate), 0 to 1 each."""
    with _drawing(_SQUARE, _SQUARE) as (drawing, axes):
        axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1, linestyle="--")
        for number, (name, (x, y)) in enumerate(series.items()):
            axes.plot(x, y, color=colour_of(name, number), label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        _percent(axes.xaxis)
        _percent(axes.yaxis)
        if len(series) > 1:
            axes.legend(loc="lower right")
        return _svg(drawing, "true over false positive rate")


def histogram(
    values: Mapping[str, Floats], *, label: str, bins: int = 20, span: tuple[float, float] = (0, 1)
) -> Markup:
    """Shares of images over a value such as confidence, a line of steps for each series."""
    edges = np.linspace(*span, bins + 1)
    with _drawing(_WIDE, 2.2) as (drawing, axes):
        for number, (name, found) in enumerate(values.items()):
            share = np.histogram(found, edges)[0] / max(len(found), 1)
            colour = colour_of(name, number)
            axes.stairs(share, edges, color=colour, linewidth=1.6, label=name)
            axes.stairs(share, edges, color=colour, fill=True, alpha=0.12)
        axes.set(xlim=span, xlabel=label, ylabel="share of images")
        axes.set_ylim(bottom=0)
        _percent(axes.yaxis)
        if span == (0, 1):
            _percent(axes.xaxis)
        if len(values) > 1:
            axes.legend()
        return _svg(drawing, f"distribution of {label}")


def class_bars(
    names: Sequence[str], series: Mapping[str, Floats], *, label: str, percent: bool = True
) -> Markup:
    """A group of horizontal bars for each class: one bar a series."""
    place = np.arange(len(names))
    height = 0.8 / max(len(series), 1)
    with _drawing(_WIDE, 0.9 + len(names) * max(0.22, 0.14 * len(series))) as (drawing, axes):
        for number, (name, values) in enumerate(series.items()):
            offset = (number - (len(series) - 1) / 2) * height
            colour = colour_of(name, number)
            axes.barh(place + offset, values, height * 0.92, color=colour, label=name)
        axes.set_yticks(place, [_shortened(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        if percent:
            axes.set_xlim(0, 1)
            _percent(axes.xaxis)
        if len(series) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(series))
        return _svg(drawing, f"{label} by class")


def _percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))


def _shortened(name: str, limit: int = 28) -> str:
    """Class names as a figure can hold them; a dollar sign would begin a formula."""
    short = name if len(name) <= limit else name[: limit - 1] + "…"
    return "".join(c if c.isprintable() else "?" for c in short).replace("$", r"\$")
