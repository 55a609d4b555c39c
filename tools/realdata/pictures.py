"""Pictures of any size and kind as small squares: pasted on white, shrunk without aliasing."""

import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softlabel.shards.errors import ImageError
from softlabel.shards.image_header import read_header
from softlabel.shards.status import Status
from softlabel.tools.realdata.fetch import Say

MAX_PIXELS = 20_000_000
"""Above that a picture is left out by what its header says, undecoded: a clip art of 623
megapixels would take 2.5 GB."""

_WHITE = (255, 255, 255, 255)
_THREADS = 2


def opened(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A JPEG, PNG or WebP file as an image that is not decoded yet.

    Raises:
        ImageError: TOO_LARGE, or not such a file.
    """
    read_header(data, max_pixels=max_pixels)
    return Image.open(io.BytesIO(data))


def squares(files: Mapping[str, bytes], side: int, *, say: Say) -> NDArray[np.uint8]:
    """Every picture whole, on a white square: [N, side, side, 3] in the order of the files.

    Pictures of more than `MAX_PIXELS` are left out, which is said. What can't be decoded raises:
    the files are pinned, and every one of them can.
    """

    def one(data: bytes) -> NDArray[np.uint8] | None:
        try:
            with opened(data) as image:
                return square(image, side)
        except ImageError as error:
            if error.status == Status.TOO_LARGE:
                return None
            raise

    # Pillow decodes without holding Python's lock.
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(one, files.values()))
    kept = [image for image in found if image is not None]
    if len(kept) < len(found):
        say(f"left out {len(found) - len(kept)} pictures of more than {MAX_PIXELS / 1e6:.0f} MP")
    return np.stack(kept)


def square(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """The whole picture, its longer side `side` pixels, in the middle of a white square."""
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    # Pillow weighs colour by alpha when it resizes, so pasting afterwards gives no dark rims.
    small = image.convert("RGBA").resize((width, height), Image.Resampling.BICUBIC)
    paper = Image.new("RGBA", (side, side), _WHITE)
    paper.alpha_composite(small, ((side - width) // 2, (side - height) // 2))
    return np.asarray(paper.convert("RGB"))


def resized(images: Iterable[NDArray[np.uint8]], side: int) -> NDArray[np.uint8]:
    """Square images to [N, side, side, 3 or nothing]; those of that side are not touched."""
    size = (side, side)
    return np.stack(
        [
            image
            if image.shape[:2] == size
            else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
            for image in images
        ]
    )


def grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of ITU-R BT.601, as Pillow's mode L has it, repeated in three channels."""
    luma = (images @ np.array([19595, 38470, 7471], np.uint32) + 0x8000) >> 16
    return np.repeat(luma.astype(np.uint8)[..., None], 3, axis=-1)
