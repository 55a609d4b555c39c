"""Many small pictures side by side, each with a line below it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabel.tools.report.gallery import data_uri
from softlabel.tools.report.page import Markup, text

_SMALL = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumbnail:
    """One picture: [H, W, 3] uint8 RGB, what stands below it, and where it is from."""

    pixels: NDArray[np.uint8]
    title: str
    detail: str
    place: str


def contact_sheet(thumbnails: Sequence[Thumbnail]) -> Markup:
    """Thumbnails in rows that fit the window; where one is from shows under the pointer."""
    return Markup('<div class="sheet">' + "\n".join(map(_thumbnail, thumbnails)) + "</div>")


def _thumbnail(one: Thumbnail) -> Markup:
    small = ' class="small"' if max(one.pixels.shape[:2]) <= _SMALL else ""
    return Markup(
        f'<div title="{text(one.place)}"><img{small} alt="{text(one.title)}" '
        f'src="{data_uri(one.pixels)}"><span>{text(one.title)}</span>'
        f"<small>{text(one.detail)}</small></div>"
    )
