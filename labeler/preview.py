"""The page that `kd-teacher check` writes: one HTML file that needs nothing else."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from softlabel.labeler.check import Checked, Shown
from softlabel.labeler.verdict import findings, table

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; max-width: 75em; }
.images { display: flex; flex-wrap: wrap; gap: 1.2em; }
figure { margin: 0; width: 16em; }
img { width: 16em; image-rendering: auto; }
figcaption { overflow-wrap: anywhere; }
table { border-collapse: collapse; }
td, th { padding: .15em .6em; text-align: right; }
td:first-child, th:first-child { text-align: left; }
tr.given { font-weight: bold; }
.warning { background: #fff0c0; padding: .4em; }
.right { color: #060; } .wrong { color: #a00; }
"""
_LEGEND = (
    "confidence: mean of the largest probability. entropy: of a prediction, in nats. classes: "
    "different top answers. consistency: probability of the same answer for an image and its "
    "mirror image, less the same for different images; near 1 for sure, steady and diverse "
    "answers, near 0 for empty ones. High confidence with low consistency is a saturated network. "
    "A few images tell gross mistakes, not one filter from another."
)


def page(
    checked: Checked, *, title: str, facts: Sequence[str], class_names: Sequence[str] | None
) -> str:
    """The whole page; every text is escaped, pictures are data URIs, there are no scripts.

    Args:
        facts: lines about the teacher and the recipe, put under the title.
    """
    said = [f"<p{_warning(line)}>{escape(line)}</p>" for line in findings(checked.results)]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *(f"<p>{escape(fact)}</p>" for fact in facts),
            *said,
            "<h2>This recipe and the usual mistakes</h2>",
            *_table(checked),
            f"<p>{escape(_LEGEND)}</p>",
            "<h2>What the teacher sees and says, with the recipe as given</h2>",
            '<div class="images">',
            *(_figure(shown, class_names) for shown in checked.shown),
            "</div></body></html>",
        ]
    )


def _warning(line: str) -> str:
    return ' class="warning"' if line.startswith("WARNING") else ""


def _table(checked: Checked) -> list[str]:
    columns, rows = table(checked.results)
    lines = ["<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in columns) + "</tr>"]
    for i, row in enumerate(rows):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f'<tr class="given">{cells}</tr>' if i == 0 else f"<tr>{cells}</tr>")
    return [*lines, "</table>"]


def _figure(shown: Shown, class_names: Sequence[str] | None) -> str:
    target = shown.sample.target
    answers = []
    for number, p in shown.top:
        kind = "unknown" if target < 0 else "right" if number == target else "wrong"
        name = escape(class_name(number, class_names))
        answers.append(f'<div class="{kind}">{p:.3f} {name}</div>')
    truth = f"<div>target: {escape(class_name(target, class_names))}</div>" if target >= 0 else ""
    return (
        f'<figure><img alt="" src="{_data_uri(shown.pixels)}"><figcaption>'
        f"<small>{escape(shown.sample.key)}</small>{truth}{''.join(answers)}</figcaption></figure>"
    )


def class_name(number: int, class_names: Sequence[str] | None) -> str:
    """A class by name where names are known, and by number."""
    known = class_names is not None and number < len(class_names)
    return f"{class_names[number]} ({number})" if known and class_names else f"class {number}"


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")
