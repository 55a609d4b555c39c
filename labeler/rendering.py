"""Members to pixels: every view of every image, as the teacher is to see it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from softlabel.labeler.rows import MemberRow
from softlabel.labeler.stream import Chunk
from softlabel.shards.decoders import Decoder
from softlabel.shards.errors import ImageError
from softlabel.shards.hashing import image_hash, key_hash
from softlabel.shards.members import LARGEST_IMAGE_BYTES, Member
from softlabel.shards.recipe import Recipe
from softlabel.shards.schema import Manifest
from softlabel.shards.status import Status
from softlabel.shards.views import view

_LARGEST_STORED_SIZE = 2**32 - 1


class ViewRenderer:
    """Decodes each image once and renders all its views; called from several threads."""

    def __init__(self, manifest: Manifest, recipe: Recipe, decoder: Decoder) -> None:
        self._manifest = manifest
        self._recipe = recipe
        self._decoder = decoder
        _, self._height, self._width = recipe.input_size

    def __call__(self, tar: int, members: Sequence[Member]) -> Chunk:
        """The members' rows, and the pixels [good x views, H, W, 3] of the good ones."""
        views = self._manifest.views
        pixels = np.empty((len(members) * views, self._height, self._width, 3), np.uint8)
        rows = []
        num_good = 0
        for member in members:
            row = self._row(member, pixels[num_good * views : (num_good + 1) * views])
            rows.append(row)
            num_good += row.status == Status.OK
        return Chunk(tar, rows, pixels[: num_good * views], 0.0)

    def _row(self, member: Member, out: NDArray[np.uint8]) -> MemberRow:
        hashed = key_hash(member.key)
        status, reason = Status.OK, ""
        try:
            self._render(member, hashed, out)
        except ImageError as error:
            status, reason = error.status, error.reason
        return MemberRow(
            key=member.key,
            key_hash=hashed,
            image_hash=0 if member.image is None else image_hash(member.image),
            offset=member.offset,
            size=min(member.size, _LARGEST_STORED_SIZE),
            target=member.target,
            status=status,
            reason=reason,
        )

    def _render(self, member: Member, hashed: int, out: NDArray[np.uint8]) -> None:
        """Write the views into `out` [V, H, W, 3]; ImageError for an image that can't be used."""
        if member.image is None:
            if member.size > LARGEST_IMAGE_BYTES:
                raise ImageError(Status.TOO_LARGE, f"{member.size:,} bytes")
            raise ImageError(Status.NO_IMAGE, "no file with an image extension")
        recipe = self._recipe
        picture = self._decoder.decode(member.image)
        for number in range(self._manifest.views):
            box = view(
                self._manifest.view_recipe,
                seed=self._manifest.view_seed,
                key_hash=hashed,
                number=number,
                height=picture.height,
                width=picture.width,
                crop_pct=recipe.crop_pct,
                crop_mode=recipe.crop_mode,
                target_height=self._height,
                target_width=self._width,
            )
            out[number] = self._decoder.render(
                picture,
                box,
                height=self._height,
                width=self._width,
                interpolation=recipe.interpolation,
            )
