"""An HTML page in one file: everything escaped, no scripts, nothing loaded from anywhere."""

from collections.abc import Sequence
from html import escape
from typing import NewType

from softlabel.tools.report.style import STYLE

Markup = NewType("Markup", str)
"""HTML that is safe as it stands: made here or in `figures` and `gallery`, never by a user."""


def text(value: object) -> Markup:
    """A value as HTML text; what can't be shown, such as a file name's odd byte, becomes a ?"""
    return Markup(escape("".join(c if c.isprintable() or c in "\n\t" else "?" for c in str(value))))


def joined(parts: Sequence[Markup]) -> Markup:
    """Pieces one after the other."""
    return Markup("\n".join(parts))


def paragraph(said: object) -> Markup:
    """A paragraph of plain text."""
    return Markup(f"<p>{text(said)}</p>")


def bullets(lines: Sequence[object]) -> Markup:
    """A list of plain lines."""
    return Markup("<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>")


def table(
    head: Sequence[object], rows: Sequence[Sequence[object]], *, numbers: bool = True
) -> Markup:
    """A table whose first column names its rows; the others are numbers, set to the right.

    Too wide for the window, it scrolls by itself.
    """
    kind = ' class="numbers"' if numbers else ""
    top = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{text(row[0])}</th>'
        + "".join(f"<td>{text(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in rows
    )
    return Markup(
        f'<div class="wide"><table{kind}><thead><tr>{top}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Sequence[tuple[object, object]]) -> Markup:
    """Names and their values, two columns."""
    return Markup(
        "<dl>"
        + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>\n" for name, value in pairs)
        + "</dl>"
    )


def tiles(figures: Sequence[tuple[object, object, object]]) -> Markup:
    """The few figures that matter most, large: (value, what it is, a detail)."""
    return Markup(
        '<div class="tiles">'
        + "".join(
            f'<div class="tile"><b>{text(value)}</b><span>{text(name)}</span>'
            f"<small>{text(detail)}</small></div>\n"
            for value, name, detail in figures
        )
        + "</div>"
    )


def figure(drawing: Markup, caption: object) -> Markup:
    """A drawing with its caption."""
    return Markup(f"<figure>{drawing}<figcaption>{text(caption)}</figcaption></figure>")


def side_by_side(parts: Sequence[Markup]) -> Markup:
    """Pieces in a row, where the window is wide enough."""
    return Markup('<div class="row">' + "".join(f"<div>{part}</div>" for part in parts) + "</div>")


def folded(summary: object, content: Markup) -> Markup:
    """Content that opens at a click."""
    return Markup(f"<details><summary>{text(summary)}</summary>{content}</details>")


def section(title: object, *content: Markup) -> Markup:
    """A part of the page under its heading."""
    return Markup(f"<section><h2>{text(title)}</h2>\n{joined(content)}\n</section>")


def page(title: object, *sections: Markup, subtitle: object = "") -> str:
    """A whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style></head>\n"
        f"<body><header><h1>{text(title)}</h1><p>{text(subtitle)}</p></header>\n"
        f"<main>{joined(sections)}</main></body></html>\n"
    )
