"""Small pictures of a source's most and least confident images, from tars on this machine."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.decoders import open_decoder
from softlabel.shards.errors import IdentityError, ImageError, TarError
from softlabel.shards.hashing import image_hash
from softlabel.shards.matching import match_tars
from softlabel.shards.specs import expand, is_local, local_path, redacted
from softlabel.shards.store import Store
from softlabel.shards.views import View
from softlabel.tools.report.contact_sheet import Thumbnail
from softlabel.tools.stats.sample import Pick

SIDE = 96
"""Height and width at most, in pixels."""


def tars_at_hand(store: Store, shards: Sequence[str]) -> dict[int, str]:
    """Tar ordinal to where it lies: one of `shards`, else where it was labelled, if it still is.

    Raises:
        UsageError: `shards` names no tar, or one that is missing.
        IdentityError: one of them is none of the store's.
    """
    if shards:
        given = expand(shards)
        return dict(zip(match_tars(store.tars, given), given, strict=True))
    return {
        tar: name
        for tar, name in enumerate(store.tars)
        if is_local(name) and Path(local_path(name)).is_file()
    }


def thumbnails(
    store: Store,
    picks: Sequence[Pick],
    urls: Mapping[int, str],
    *,
    class_name: Callable[[int], str],
) -> list[Thumbnail]:
    """The pictures of some images, whole; without those whose tars are elsewhere.

    Each is read by its place in the tar, one at a time. Drawn by Pillow whatever the labels were
    made with: nobody sees the difference, and torch stays unloaded.

    Raises:
        IdentityError: a tar holds other bytes than were labelled.
        TarError: a tar can't be read.
    """
    found = []
    for pick in picks:
        url = urls.get(pick.tar)
        if url is None or not is_local(url):
            continue
        pixels = _pixels(store, pick, url)
        if pixels is not None:
            name = class_name(pick.first_class)
            place = f"{Path(local_path(url)).name}, row {pick.tar},{pick.row}"
            found.append(Thumbnail(pixels=pixels, title=name, detail=f"{pick.p1:.1%}", place=place))
    return found


def _pixels(store: Store, pick: Pick, url: str) -> NDArray[np.uint8] | None:
    rows = store.read(pick.tar, ("offset", "size"))
    try:
        with Path(local_path(url)).open("rb") as file:
            file.seek(int(rows["offset"][pick.row]))
            data = file.read(int(rows["size"][pick.row]))
    except OSError as error:
        raise TarError(f"{redacted(url)}: can't be read: {error.strerror}") from None
    if image_hash(data) != pick.image_hash:
        raise IdentityError(
            f"{redacted(url)}: not the bytes that were labelled; was the tar packed anew?"
        )
    decoder = open_decoder("pillow", max_pixels=store.manifest.max_image_pixels)
    try:
        picture = decoder.decode(data)
    except ImageError:  # the labels' own decoder could
        return None
    shrink = max(1.0, max(picture.height, picture.width) / SIDE)
    return decoder.render(
        picture,
        View(0, 0, picture.height, picture.width, False),
        height=max(1, round(picture.height / shrink)),
        width=max(1, round(picture.width / shrink)),
        interpolation="bilinear",
    )
