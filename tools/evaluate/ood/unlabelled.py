"""Images that no store knows, out of their tars, as several models see them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from softlabel.labeler.rendering import ViewRenderer
from softlabel.labeler.stream import Chunk, StreamSettings, TarFailed, stream
from softlabel.shards.decoders import Decoder, open_decoder
from softlabel.shards.members import Member
from softlabel.shards.recipe import Recipe
from softlabel.shards.schema import Manifest
from softlabel.shards.status import Status

_ANY_NUMBER = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """Some images of one tar; those that a decoder refuses are missing."""

    pixels: Sequence[NDArray[np.uint8]]
    """[n, H, W, 3] for each way of seeing."""
    refused: int
    """Members that are no image, or none that can be decoded."""


@dataclass(frozen=True, slots=True)
class _Seen(Chunk):
    """A chunk that holds one array of pixels for each way of seeing."""

    views: tuple[NDArray[np.uint8], ...]


def unlabelled_views(
    tars: Sequence[str],
    ways: Sequence[tuple[Recipe, str | None]],
    *,
    manifest: Manifest,
    batch_size: int,
    workers: int,
) -> Iterator[Views]:
    """The images of some tars, in order.

    Args:
        tars: their URLs.
        ways: of seeing: a recipe, whose centre view is taken, and the name of a decoder; None is
            that of the labels.
        manifest: of the labels: decoder, largest image, extensions.
        batch_size: members at a time; fewer at the end of a tar.
        workers: threads that decode.

    Raises:
        TarError: a tar can't be read to its end.
        MachineError: a decoder is missing.
    """
    decode = _Decode(ways, manifest)
    settings = StreamSettings(
        workers=workers,
        chunk_members=batch_size,
        image_ext=manifest.image_ext,
        rows_per_tar=_ANY_NUMBER,
    )
    with stream(list(enumerate(tars)), decode, settings) as items:
        for item in items:
            if isinstance(item, TarFailed):
                raise item.error
            if isinstance(item, _Seen):
                refused = len(item.rows) - len(item.views[0])
                yield Views(pixels=item.views, refused=refused)


class _Decode:
    """Members to pixels, every way; called from several threads."""

    def __init__(self, ways: Sequence[tuple[Recipe, str | None]], manifest: Manifest) -> None:
        centre = replace(manifest, views=1, view_recipe="center", view_seed=0)
        names = [name or manifest.decoder for _, name in ways]
        decoders: dict[str, Decoder] = {
            name: open_decoder(name, max_pixels=manifest.max_image_pixels) for name in set(names)
        }
        self._renderers = [
            ViewRenderer(centre, recipe, decoders[name])
            for (recipe, _), name in zip(ways, names, strict=True)
        ]

    def __call__(self, tar: int, members: Sequence[Member]) -> _Seen:
        chunks = [render(tar, members) for render in self._renderers]
        good = np.array([[row.status == Status.OK for row in c.rows] for c in chunks], np.bool_)
        # Where decoders disagree, an image must be good for all of them.
        every: NDArray[np.bool_] = np.logical_and.reduce(good, axis=0)
        views = tuple(chunk.pixels[every[own]] for chunk, own in zip(chunks, good, strict=True))
        return _Seen(tar, chunks[0].rows, chunks[0].pixels[:0], 0.0, views)
