"""What both decoders do to a decoded picture in the same way: cut a box, pick pixels, mirror."""

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.views import View

Pixels = NDArray[np.uint8]


def inside(view: View, height: int, width: int) -> bool:
    """Whether the view's box lies within an image of this size."""
    return (
        view.top >= 0
        and view.left >= 0
        and view.top + view.height <= height
        and view.left + view.width <= width
    )


def cut(pixels: Pixels, view: View) -> Pixels:
    """The view's box of [H, W, 3] pixels; outside the image the nearest edge pixel is repeated.

    Shares memory with `pixels` where the box is inside. Box and image must overlap.
    """
    H, W = pixels.shape[:2]
    bottom, right = view.top + view.height, view.left + view.width
    if inside(view, H, W):
        return pixels[view.top : bottom, view.left : right]
    if view.top >= H or view.left >= W or bottom <= 0 or right <= 0:
        raise ValueError(f"{view} does not touch an image of {H}x{W}")
    above, before = max(0, -view.top), max(0, -view.left)
    part = pixels[max(0, view.top) : bottom, max(0, view.left) : right]
    below, after = above + part.shape[0], before + part.shape[1]
    box = np.empty((view.height, view.width, 3), np.uint8)
    box[above:below, before:after] = part
    box[above:below, :before] = part[:, :1]
    box[above:below, after:] = part[:, -1:]
    box[:above] = box[above]
    box[below:] = box[below - 1]
    return box


def nearest(pixels: Pixels, height: int, width: int) -> Pixels:
    """Each output pixel is the input pixel under its centre, in integers.

    Pillow adds up a float step instead and can be one pixel off where a centre meets an edge.
    """
    H, W = pixels.shape[:2]
    rows = (2 * np.arange(height) + 1) * H // (2 * height)
    columns = (2 * np.arange(width) + 1) * W // (2 * width)
    picked: Pixels = pixels.take(rows, axis=0).take(columns, axis=1)
    return picked


def mirrored(pixels: Pixels) -> Pixels:
    """Left and right exchanged, as a new array."""
    flipped = np.empty_like(pixels)
    # By channel, numpy copies bytes with a stride; the whole array at once would be three times
    # slower, and torch.flip would start a team of threads in each of ours.
    for channel in range(3):
        flipped[..., channel] = pixels[:, ::-1, channel]
    return flipped
