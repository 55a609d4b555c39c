"""The figures as bars: what part of the copy bandwidth each contestant comes to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from softlabel.tools.bench.kernel.lines import COPY, PRODUCTS, title

_OURS = "#1f77b4"
_PEER = "#9aa4ae"
_FLOOR = "#d9dde2"


def plot(found: Mapping[str, Any], machine: Mapping[str, Any], path: Path) -> None:
    """One panel a shape; the file's ending says png or svg."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "softlabel"}
    from matplotlib import pyplot

    results = found.get("results", [found])
    bars = [len(result["contestants"]) for result in results]
    figure, panels = pyplot.subplots(
        len(results),
        1,
        figsize=(9, sum(bars) * 0.28 + 1.1 * len(results) + 0.5),
        gridspec_kw={"height_ratios": bars},
        squeeze=False,
        layout="constrained",
    )
    for panel, result in zip(panels[:, 0], results, strict=True):
        _panel(panel, result)
    figure.supxlabel(_machine(results[0], machine), fontsize=8)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def _panel(panel: Any, result: Mapping[str, Any]) -> None:
    rows = result["contestants"]
    bandwidth = "copy_gb_per_s" in result
    values = [100 * row["share_of_copy"] if bandwidth else row["ms"] for row in rows.values()]
    colours = [_colour(name) for name in rows]
    bars = panel.barh(list(rows), values, color=colours)
    said = [f" {_time(rows[name]['ms'])}, {result['times_ours'][name]:.2f} x ours" for name in rows]
    panel.bar_label(bars, said, fontsize=8)
    panel.invert_yaxis()
    panel.set_xlim(0, 1.25 * max([*values, 100 if bandwidth else 0]))
    panel.set_title(f"Loss and gradient, {title(result)}", fontsize=9, loc="left")
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    if bandwidth:
        panel.axvline(100, color="#5f6872", linewidth=0.8, linestyle=":")
        panel.set_xlabel("minimal traffic, % of a large copy's bandwidth", fontsize=8)
    else:
        panel.set_xlabel("ms", fontsize=8)


def _colour(name: str) -> str:
    if "sparse_kl" in name:
        return _OURS
    return _FLOOR if name in (COPY, PRODUCTS) else _PEER


def _time(ms: float) -> str:
    return f"{ms:.1f} ms" if ms >= 1 else f"{1e3 * ms:.0f} us"


def _machine(result: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    where = result["device"]
    if where == "cpu":
        where = f"{machine['cpu']}, {result['threads']} thread(s)"
    return f"{where}, torch {machine.get('torch')}, triton {machine.get('triton')}"
