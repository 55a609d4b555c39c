"""The Pillow decoder: needs no torch, and is what every other decoder is compared with."""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from softlabel.shards.decoders import Picture
from softlabel.shards.errors import ImageError
from softlabel.shards.image_header import Header, read_header
from softlabel.shards.orientation import UPRIGHT
from softlabel.shards.pixels import cut, inside, nearest
from softlabel.shards.status import Status
from softlabel.shards.views import View

# Called directly: Image.open would warn or refuse by Pillow's global pixel limit, and take an MPO
# for something other than the JPEG that its first picture is.
_PLUGINS: dict[str, Callable[[io.BytesIO], Image.Image]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REASON_CHARACTERS = 200


class PillowDecoder:
    """A `Decoder` whose pictures are Pillow images in mode RGB."""

    name = "pillow"

    def __init__(self, *, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    def decode(self, data: bytes) -> Picture:
        image = decode_image(data, read_header(data, max_pixels=self._max_pixels))
        return Picture(image.height, image.width, image)

    def render(
        self, picture: Picture, view: View, *, height: int, width: int, interpolation: str
    ) -> NDArray[np.uint8]:
        image: Image.Image = picture.pixels
        if not inside(view, image.height, image.width):
            image = Image.fromarray(cut(np.asarray(image), view))
        elif (view.height, view.width) != (image.height, image.width):
            image = _crop(image, view)
        if (view.height, view.width) != (height, width):
            if interpolation == "nearest":
                image = Image.fromarray(nearest(np.asarray(image), height, width))
            else:
                image = image.resize((width, height), _RESAMPLING[interpolation])
        if view.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.array(image)


def decode_image(data: bytes, header: Header) -> Image.Image:
    """The picture that `header` announces, in mode RGB and upright.

    Raises:
        ImageError: Pillow cannot decode the bytes, for whatever reason.
    """
    # For bad bytes Pillow raises OSError, ValueError, SyntaxError, struct.error, EOFError,
    # NotImplementedError, DecompressionBombError, MemoryError and others.
    try:
        image = _PLUGINS[header.format](io.BytesIO(header.without_metadata(data)))
        if image.size != (header.width, header.height):
            raise ValueError(f"size is {image.size}, header says {header.width, header.height}")
        image.load()
        image = _rgb(image)
        if header.orientation != UPRIGHT:
            image = image.transpose(_TURNS[header.orientation])
        return image
    except Exception as error:
        too_large = isinstance(error, Image.DecompressionBombError)  # Pillow's own limit, for WebP
        status = Status.TOO_LARGE if too_large else Status.UNDECODABLE
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:_REASON_CHARACTERS]
        raise ImageError(status, f"{header.format}: {problem}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        # 16-bit grey: convert() would clip nearly every pixel to white.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _crop(image: Image.Image, view: View) -> Image.Image:
    box = (view.left, view.top, view.left + view.width, view.top + view.height)
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and view.height * view.width > limit:
        # crop() warns of a decompression bomb, though the picture was decoded long since.
        return image.transform((view.width, view.height), Image.Transform.EXTENT, box)
    return image.crop(box)
