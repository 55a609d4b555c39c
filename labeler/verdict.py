"""What the evidence on several recipes says, in words and as a table."""

from collections.abc import Sequence

from softlabel.labeler.evidence import Evidence, clearly_above

Results = Sequence[tuple[str, Evidence]]
"""(name, evidence) of each recipe; the one given by the user comes first."""

FEW_TARGETS = 8
"""With fewer images whose class is known, accuracy decides nothing."""


def table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Column names, and a row of text for each recipe."""
    labelled = len(results[0][1].hits)
    columns = ["recipe", "confidence", "entropy", "classes", "consistency"]
    rows = [
        [
            name,
            f"{found.confidence.mean():.3f}",
            f"{found.entropy.mean():.3f}",
            str(found.num_predicted),
            f"{found.consistency.mean():.3f}",
            *([f"{found.hits.mean():.3f}"] if labelled else []),
        ]
        for name, found in results
    ]
    return columns + (["accuracy"] if labelled else []), rows


def findings(results: Results) -> list[str]:
    """The verdict, then what there is to say of confidence: one sentence each."""
    return [_verdict(results), *_on_confidence(results)]


def better(results: Results) -> list[tuple[str, Evidence]]:
    """The recipes that look better than the given one, best first; none if it looks right.

    One does if it has clearly more accuracy, or clearly more consistency and no less accuracy;
    accuracy counts where enough targets are known. Differences that a few images can't tell, such
    as those between filters, so never speak against the given recipe.
    """
    _, given = results[0]
    found = [rival for rival in results[1:] if _is_better(rival[1], given)]
    return sorted(found, key=lambda rival: _rank(rival[1]), reverse=True)


def _is_better(rival: Evidence, given: Evidence) -> bool:
    if clearly_above(rival.consistency, given.consistency):
        return _accuracy(rival) >= _accuracy(given)
    return _accuracy(given) >= 0 and clearly_above(rival.hits, given.hits)


def _rank(found: Evidence) -> tuple[float, float]:
    return _accuracy(found), float(found.consistency.mean())


def _accuracy(found: Evidence) -> float:
    """-1 where too few targets are known."""
    return float(found.hits.mean()) if len(found.hits) >= FEW_TARGETS else -1.0


def _verdict(results: Results) -> str:
    given = results[0][1]
    rivals = better(results)
    if not rivals:
        return "The recipe as given looks best: none of the usual mistakes does clearly better."
    (name, found), *others = rivals
    figures = [f"consistency {found.consistency.mean():.3f} against {given.consistency.mean():.3f}"]
    if _accuracy(given) >= 0:
        figures += [f"accuracy {found.hits.mean():.3f} against {given.hits.mean():.3f}"]
    # Not told from the best by these images, so it may as well be one of them.
    alike = [f"`{other}`" for other, its in others if not _is_better(found, its)]
    so_do = f"; so {'do' if len(alike) > 1 else 'does'} {', '.join(alike)}" if alike else ""
    return (
        f"WARNING: `{name}` looks better than the recipe as given ({', '.join(figures)}){so_do}. "
        "Check the recipe."
    )


def _on_confidence(results: Results) -> list[str]:
    given = results[0][1]
    name, surest = max(results, key=lambda result: float(result[1].confidence.mean()))
    if surest.confidence.mean() <= given.confidence.mean():
        return []
    figures = f"{surest.confidence.mean():.3f} against {given.confidence.mean():.3f}"
    steadiness = f"{surest.consistency.mean():.3f} against {given.consistency.mean():.3f}"
    if clearly_above(given.consistency, surest.consistency):
        kind, meaning = (
            "note",
            f"but is less consistent, {steadiness}: saturated, so sure and wrong",
        )
    elif clearly_above(surest.confidence, given.confidence):
        kind, meaning = "WARNING", f"and is no less consistent, {steadiness}: look at both"
    else:
        kind, meaning = "note", f"too little for {len(given.confidence)} images to tell"
    return [
        f"{kind}: the recipe as given has not the highest mean confidence: `{name}` has {figures}, "
        f"{meaning}."
    ]


def text_table(results: Results) -> str:
    """The table for a terminal."""
    columns, rows = table(results)
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [columns, *rows]
    ]
    return "\n".join(line.rstrip() for line in lines)
