"""Image bytes to the pixels a model sees: the interface, and the two decoders behind it."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.errors import MachineError, UsageError
from softlabel.shards.views import View

DECODERS = ("torchvision", "pillow")


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image, upright; `pixels` are its decoder's own."""

    height: int
    width: int
    pixels: Any


class Decoder(Protocol):
    """Decodes and renders; one object may be used by several threads at once."""

    name: str

    def decode(self, data: bytes) -> Picture:
        """Decode a JPEG, PNG or WebP file, to RGB and upright; of an animation the first frame.

        Raises:
            ImageError: whatever is wrong with the bytes: UNDECODABLE, or TOO_LARGE, which is
                decided before a pixel is decoded.
        """

    def render(
        self, picture: Picture, view: View, *, height: int, width: int, interpolation: str
    ) -> NDArray[np.uint8]:
        """Cut the view's box, resize it, then flip it: [height, width, 3] RGB, C-contiguous.

        The box is cut before it is resized, so no pixel outside it has any weight: torchvision's
        RandomResizedCrop does so, and torch can do nothing else. A box that already has the asked
        size is copied. The result is a new array.

        Args:
            interpolation: "bilinear" or "bicubic", both with antialias as Pillow, or "nearest".
        """


def open_decoder(name: str, *, max_pixels: int) -> Decoder:
    """The decoder of that name, one of DECODERS; larger images are refused by their header.

    Raises:
        MachineError: it cannot be imported here.
    """
    if max_pixels < 1:
        raise ValueError(f"max_pixels must be at least 1, got {max_pixels}")
    if name == "pillow":
        from softlabel.shards.decode_pillow import PillowDecoder

        return PillowDecoder(max_pixels=max_pixels)
    if name == "torchvision":
        # Not only ImportError: builds that do not fit each other fail in many ways.
        try:
            from softlabel.shards.decode_torchvision import TorchvisionDecoder

            return TorchvisionDecoder(max_pixels=max_pixels)
        except Exception as error:
            raise MachineError(
                f"decoder torchvision does not load ({str(error).splitlines()[0]}); "
                "install torchvision, or use --decoder pillow"
            ) from error
    raise UsageError(f"decoder: wanted {' or '.join(DECODERS)}, found {name!r}")


def resolve_decoder(name: str) -> str:
    """Which of DECODERS a run will use: "auto" is torchvision where it loads, else pillow.

    Raises:
        MachineError: the decoder named cannot be imported here.
    """
    if name != "auto":
        open_decoder(name, max_pixels=1)
        return name
    try:
        open_decoder("torchvision", max_pixels=1)
    except MachineError:
        return "pillow"
    return "torchvision"
