"""Example images with what each model takes them for."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.report.figures import PALETTE
from softlabel.tools.report.page import Markup, text

_SMALL = 96
LARGEST = 192
"""Height and width at most, in pixels, of an image in a page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Guess:
    """A class and its probability."""

    name: str
    probability: float
    is_right: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One image: [H, W, 3] uint8 RGB, where it is from, and the guesses by who makes them."""

    pixels: NDArray[np.uint8]
    place: str
    guesses: Sequence[tuple[str, Sequence[Guess]]]
    target: str | None = None


def gallery(cards: Sequence[Card]) -> Markup:
    """Cards in a grid that fits the window."""
    return Markup('<div class="gallery">' + "\n".join(map(_card, cards)) + "</div>")


def _card(card: Card) -> Markup:
    small = ' class="small"' if max(card.pixels.shape[:2]) <= _SMALL else ""
    target = "" if card.target is None else f"<br>target: {text(card.target)}"
    said = "".join(
        f"<h3>{text(who)}</h3>" + "".join(_guess(guess, who) for guess in guesses)
        for who, guesses in card.guesses
    )
    return Markup(
        f'<div class="card"><img{small} alt="" src="{data_uri(card.pixels)}">'
        f'<div>{said}</div><div class="place">{text(card.place)}{target}</div></div>'
    )


def _guess(guess: Guess, who: str) -> Markup:
    right = " right" if guess.is_right else ""
    colour = f"var(--{who})" if who in PALETTE else "currentColor"
    width = 100 * min(max(guess.probability, 0.0), 1.0)
    return Markup(
        f'<div class="guess{right}"><i style="width: {width:.0f}%; background: {colour}"></i>'
        f"<span>{text(guess.name)}</span><span>{guess.probability:.0%}</span></div>"
    )


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """An image as a PNG in a data: address; large ones are made smaller, small ones kept exact.

    A page shows small ones enlarged without smoothing: that is for its style, and costs no bytes.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
