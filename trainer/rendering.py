"""Encoded images to what the student sees, after proof that they are the labelled ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.decoders import Decoder
from softlabel.shards.errors import IdentityError, ImageError, MachineError
from softlabel.shards.hashing import image_hash
from softlabel.shards.recipe import Recipe
from softlabel.shards.views import view
from softlabel.trainer.labels import LabelledRows
from softlabel.trainer.pixel_cache import PixelCache
from softlabel.trainer.tar_files import TarFiles


@dataclass(frozen=True, kw_only=True)
class Renderer:
    """Renders one view of each image; may be used by several threads."""

    decoder: Decoder
    view_recipe: str
    view_seed: int
    teacher: Recipe
    """Decides the boxes; the student's size only what they are resized to."""
    height: int
    width: int
    interpolation: str
    files: TarFiles
    cache: PixelCache | None = None
    """Views rendered before."""

    def render(
        self,
        encoded: Sequence[bytes],
        rows: LabelledRows,
        numbers: NDArray[np.int64],
        out: NDArray[np.uint8],
    ) -> None:
        """Write view `numbers[i]` of image i into `out[i]`, [H, W, 3].

        Raises:
            IdentityError: an image is not the one that was labelled.
            MachineError: an image that the labeler decoded can't be decoded here.
        """
        wanted = rows.image_hash.tolist()
        hashes = rows.key_hash.tolist()
        tars, members = rows.tar.tolist(), rows.member.tolist()
        for i, (data, number) in enumerate(zip(encoded, numbers.tolist(), strict=True)):
            place = (tars[i], members[i], number)
            if self.cache is not None and (kept := self.cache.get(place)) is not None:
                out[i] = kept
                continue
            if image_hash(data) != wanted[i]:
                raise IdentityError(
                    f"{self._name(rows, i)}: not the image that was labelled: the tar was changed "
                    "or packed again; label it again, or train from the tar that was labelled"
                )
            try:
                out[i] = self._view(data, hashes[i], number)
            except ImageError as error:
                raise MachineError(
                    f"{self._name(rows, i)}: the labeler could decode it, decoder "
                    f"{self.decoder.name} here can't: {error.reason}; install the versions that "
                    "made the store"
                ) from None
            if self.cache is not None:
                self.cache.put(place, out[i])

    def _view(self, data: bytes, key_hash: int, number: int) -> NDArray[np.uint8]:
        picture = self.decoder.decode(data)
        _, target_height, target_width = self.teacher.input_size
        box = view(
            self.view_recipe,
            seed=self.view_seed,
            key_hash=key_hash,
            number=number,
            height=picture.height,
            width=picture.width,
            crop_pct=self.teacher.crop_pct,
            crop_mode=self.teacher.crop_mode,
            target_height=target_height,
            target_width=target_width,
        )
        return self.decoder.render(
            picture,
            box,
            height=self.height,
            width=self.width,
            interpolation=self.interpolation,
        )

    def _name(self, rows: LabelledRows, i: int) -> str:
        return f"{self.files.name(int(rows.tar[i]))}: member {int(rows.member[i])}"
