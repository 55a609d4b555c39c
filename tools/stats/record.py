"""Statistics as JSON has them: plain, and null where there is nothing to take a mean of."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from softlabel.tools.stats.source import QUANTILES, Distribution, LabelFigures, SourceStatistics

ClassName = Callable[[int], str]
_TAIL = "tail at "


def source_record(source: SourceStatistics, class_name: ClassName) -> dict[str, Any]:
    """A source; the histogram has class numbers as keys, since class names need not be unique."""
    seen = np.flatnonzero(source.class_histogram)
    return {
        "source": source.name,
        "tars": source.num_tars,
        **_record(source, class_name),
        "images_in_other_sources": source.shared,
        "duplicates_exact": source.duplicates_exact,
        "class_histogram": {str(c): int(source.class_histogram[c]) for c in seen},
    }


def tar_record(tar: LabelFigures, class_name: ClassName) -> dict[str, Any]:
    """A tar; its duplicates are those within it."""
    return {"tar": tar.name, **_record(tar, class_name)}


def _record(figures: LabelFigures, class_name: ClassName) -> dict[str, Any]:
    found = figures.distributions
    return {
        "rows": figures.rows,
        "labelled": figures.labelled,
        "status": {status.name.lower(): count for status, count in figures.status.items()},
        "with_target": figures.targets,
        "views": figures.labels,
        "effective_classes": figures.effective_classes,
        "classes_seen": figures.num_classes_seen,
        "most_frequent": [
            {
                "class": number,
                "name": class_name(number),
                "images": count,
                "share": count / figures.labelled,
            }
            for number, count in figures.most_frequent
        ],
        "share_p1_over_0.999": figures.saturated_share if figures.labels else None,
        "p1": _distribution(found.get("p1")),
        "entropy_nats": _distribution(found.get("entropy")),
        "energy": _distribution(found.get("energy")),
        "tail": {
            name.removeprefix(_TAIL): _distribution(one)
            for name, one in found.items()
            if name.startswith(_TAIL)
        },
        "quantiles_exact": figures.quantiles_exact,
        "top_k_for_mean_tail_under_0.05": dict(_wanted(figures)),
        "duplicate_images": figures.duplicates,
    }


def _wanted(figures: LabelFigures) -> Iterator[tuple[str, dict[str, Any]]]:
    for temperature, (k, exact) in figures.wanted_top_k.items():
        yield f"{temperature:g}", {"k": k, "exact": exact}


def _distribution(found: Distribution | None) -> dict[str, float] | None:
    if found is None:
        return None
    named = {f"q{100 * q:02.0f}": v for q, v in zip(QUANTILES, found.quantiles, strict=True)}
    return {"mean": found.mean, **named}
