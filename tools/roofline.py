"""docs/kernels-roofline.svg: how long each way to write the loss must take at least, by its bytes.

`python -m softlabel.tools.roofline` draws it anew. Nothing in it is measured: bytes a logit are
counted from what each formulation reads and writes, the bandwidth is one H200's for copies.
"""

from pathlib import Path

_COPY_BANDWIDTH = 4.3e12
"""Bytes a second of a device-to-device copy on an H200, both directions counted."""

_EXP2_RATE = 16 * 132 * 1.98e9
"""Exponentials a second: 16 a clock on each of 132 multiprocessors."""

_ROWS, _CLASSES = 4096, 21_841

# Bytes a logit in bfloat16 and in float32: every pass over the logits or a tensor of their size.
_BYTES = {
    "eager, dense teacher rebuilt, F.kl_div": (88, 76),
    "torch.compile, dense teacher": (18, 24),
    "torch.compile, sparse teacher": (14, 20),
    "this kernel above 32,768 columns, cache cold": (6, 12),
    "this kernel: one read, one write": (4, 8),
}


def floors() -> dict[str, tuple[float, float]]:
    """Microseconds that each formulation needs at least, in bfloat16 and in float32."""
    logits = _ROWS * _CLASSES
    return {
        name: (logits * half / _COPY_BANDWIDTH * 1e6, logits * full / _COPY_BANDWIDTH * 1e6)
        for name, (half, full) in _BYTES.items()
    }


def draw(path: Path) -> None:
    """Write the picture, the same bytes each time."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "softlabel", "font.size": 10})
    from matplotlib import pyplot

    found = floors()
    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    for row, (half, full) in enumerate(found.values()):
        axes.barh(row + 0.2, full, height=0.38, color="#9db8d2", label="float32" * (row == 0))
        axes.barh(row - 0.2, half, height=0.38, color="#2f5f8f", label="bfloat16" * (row == 0))
        for offset, value in ((0.2, full), (-0.2, half)):
            axes.text(value * 1.04, row + offset, f"{value:,.0f} µs", va="center", fontsize=9)
    exponentials = _ROWS * _CLASSES / _EXP2_RATE * 1e6
    axes.axvline(exponentials, color="#b04a2f", linestyle="--", linewidth=1)
    axes.text(
        exponentials * 1.05,
        len(found) - 0.35,
        "one exponential a logit",
        color="#b04a2f",
        fontsize=9,
    )
    axes.set_yticks(range(len(found)), list(found))
    axes.set(xscale="log", xlim=(10, 6000), ylim=(-0.6, len(found) - 0.05))
    axes.set_xlabel(
        f"least time at 4.3 TB/s for {_ROWS:,} x {_CLASSES:,} logits (derived, not measured)",
        loc="right",
    )
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.93))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).resolve().parents[1] / "docs" / "kernels-roofline.svg")
