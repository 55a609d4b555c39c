"""The torchvision decoder: Pillow's pixels, resized five times as fast.

Ordinary JPEGs go through torchvision's own decoder; the rest, and what that refuses, through
Pillow, which so decides what is undecodable. PNG is among the rest: torchvision 0.29's decode_png
ends the whole process with a segmentation fault on ANY damage in the pixel data.
"""

import importlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from softlabel.shards.decode_pillow import decode_image
from softlabel.shards.decoders import Picture
from softlabel.shards.image_header import Header, read_header
from softlabel.shards.orientation import UPRIGHT
from softlabel.shards.pixels import Pixels, cut, mirrored, nearest
from softlabel.shards.views import View

_RGB = 3  # torchvision.io.ImageReadMode.RGB


class TorchvisionDecoder:
    """A `Decoder` whose pictures are [H, W, 3] arrays, C-contiguous."""

    name = "torchvision"

    def __init__(self, *, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        _load_operators()
        # The operator itself: torchvision.io's function around it warns of deprecation at each
        # call, and silencing warnings is not thread-safe.
        self._decode_jpeg = torch.ops.image.decode_jpeg.default

    def decode(self, data: bytes) -> Picture:
        header = read_header(data, max_pixels=self._max_pixels)
        pixels = None
        if header.plain and header.orientation == UPRIGHT:
            pixels = self._ordinary(data, header)
        if pixels is None:
            pixels = np.array(decode_image(data, header))
        return Picture(pixels.shape[0], pixels.shape[1], pixels)

    def _ordinary(self, data: bytes, header: Header) -> Pixels | None:
        encoded = torch.frombuffer(bytearray(header.without_metadata(data)), dtype=torch.uint8)
        try:
            image = self._decode_jpeg(encoded, _RGB, False)
        except Exception:  # RuntimeError and whatever else: Pillow has the last word
            return None
        pixels: Pixels = image.permute(1, 2, 0).contiguous().numpy()
        return pixels if pixels.shape == (header.height, header.width, 3) else None

    def render(
        self, picture: Picture, view: View, *, height: int, width: int, interpolation: str
    ) -> NDArray[np.uint8]:
        box = cut(picture.pixels, view)
        if box.shape[:2] != (height, width):
            if interpolation == "nearest":
                box = nearest(box, height, width)
            else:
                box = _resized(box, height, width, interpolation)
        elif not view.flip:
            return box.copy()
        return mirrored(box) if view.flip else box


def _resized(box: Pixels, height: int, width: int, interpolation: str) -> Pixels:
    # A contiguous channels-last batch of one is the layout that torch resizes in place, in this
    # thread alone; any other it first copies with a team of threads.
    image = torch.from_numpy(np.ascontiguousarray(box)).unsqueeze(0).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        image, size=(height, width), mode=interpolation, antialias=True
    )
    pixels: Pixels = resized.permute(0, 2, 3, 1).contiguous().numpy()[0]
    return pixels


def _load_operators() -> None:
    """Register torch.ops.image from torchvision's image library.

    Only where that file is not found by its name is the whole package imported: with its models and
    torch's compiler that takes seconds, at the start of every run.
    """
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed")
    for library in sorted(Path(spec.origin).parent.glob("image*.so")):
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    if not hasattr(torch.ops.image, "decode_jpeg"):
        importlib.import_module("torchvision.io")
