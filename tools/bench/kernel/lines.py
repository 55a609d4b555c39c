"""The figures as people read them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COPY = "copy of the logits"
"""The least that loss and gradient could take: a row of the table, no contestant."""

PRODUCTS = "the three matrix products alone"
"""The same for the last layer."""

HOST = ("host", "processor")
"""What `host_ms` is called: until a GPU's call returned, or a CPU's own time."""


def lines(found: Mapping[str, Any]) -> Sequence[str]:
    """A table for each shape."""
    results = found.get("results", [found])
    return [line for result in results for line in (*_table(result), "")][:-1]


def title(result: Mapping[str, Any]) -> str:
    """What was computed, in a line."""
    padding = ""
    if result["width"] != result["classes"]:
        padding = f" (padded to {result['width']:,})"
    hard = f", hard labels x {result['hard']:g}" if result["hard"] else ""
    features = f"{result['features']} features, " if "features" in result else ""
    return (
        f"{result['rows']:,} x {result['classes']:,}{padding}, {features}{result['dtype']}, "
        f"top {result['top_k']}, {result['tail']}, T = {result['temperature']:g}{hard}"
    )


def _table(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"loss and gradient, {title(result)}"
    where = result["device"]
    threads = f", {result['threads']} thread(s)" if where == "cpu" else ""
    yield f"{where}{threads}; {result['repeats']} repeats, {result['method']}"
    bandwidth = "copy_gb_per_s" in result
    if bandwidth:
        yield (
            f"minimal traffic {result['minimal_bytes'] / 1e6:,.1f} MB; "
            f"a large copy moves {result['copy_gb_per_s']:,.1f} GB/s, read and written"
        )
    yield (
        f"{'':38}{'median':>12}{'p20':>12}{'p80':>12}{HOST[where == 'cpu']:>12}"
        + (f"{'GB/s':>9}{'of copy':>9}" if bandwidth else "")
        + f"{'extra MB':>12}{'x ours':>9}{'error':>9}"
    )
    for name, row in result["contestants"].items():
        yield (
            f"{name:38}{_time(row['ms'])}{_time(row['ms_p20'])}{_time(row['ms_p80'])}"
            + _time(row["host_ms"])
            + (f"{row['gb_per_s']:9.1f}{row['share_of_copy']:9.1%}" if bandwidth else "")
            + f"{_extra(row)}{result['times_ours'][name]:9.2f}{_error(row)}"
        )
    for name, reason in result["not_measured"].items():
        yield f"{name}: not measured ({reason})"


def _time(ms: float) -> str:
    return f"{ms:9.2f} ms" if ms >= 1 else f"{1e3 * ms:9.1f} us"


def _extra(row: Mapping[str, Any]) -> str:
    if "extra_mb" not in row:
        return f"{'':12}"
    if row["extra_mb"] is None:
        return f"{'unmeasured':>12}"
    return f"{row['extra_mb']:12.1f}"


def _error(row: Mapping[str, Any]) -> str:
    errors = [row[name] for name in ("loss_error", "grad_error") if name in row]
    return f"{max(errors):9.0e}" if errors else f"{'':9}"
