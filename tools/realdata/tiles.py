"""Tiles cut from desktop wallpapers: photographs' textures and parts of things, at any side."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from softlabel.tools.realdata.archives import deb_files
from softlabel.tools.realdata.fetch import Say, fetch
from softlabel.tools.realdata.packages import LOMIRI_WALLPAPERS, MATE_BACKGROUNDS
from softlabel.tools.realdata.pictures import opened

# (tiles along a picture's shorter side, steps a tile): few large ones show things and overlap by
# half, many small ones show surfaces.
_GRIDS = ((3, 2), (6, 2), (12, 1))
# Sky, blur: a tile whose grey levels deviate less is left out.
_FLAT = 6.0
_PICTURES = (".jpg", ".png")
# One picture of three sizes.
_COPIES = ("Elephants_3840x2160.jpg", "Elephants_5640x3172.jpg")


def tiles(side: int, *, say: Say) -> NDArray[np.uint8]:
    """All tiles [N, side, side, 3], picture by picture in the order of their names."""
    packages = (MATE_BACKGROUNDS, LOMIRI_WALLPAPERS)
    files = [deb_files(fetch(package, say=say), _is_picture) for package in packages]
    return np.concatenate([cut for group in files for cut in _cut_all(group, side)])


def _is_picture(name: str) -> bool:
    return "/backgrounds/" in name and name.endswith(_PICTURES) and not name.endswith(_COPIES)


def _cut_all(files: Mapping[str, bytes], side: int) -> Iterator[NDArray[np.uint8]]:
    for data in files.values():
        with opened(data, max_pixels=100_000_000) as image:
            picture = image.convert("RGB")
        for tiles_down, steps in _GRIDS:
            yield cut(picture, side, tiles_down=tiles_down, steps=steps)


def cut(picture: Image.Image, side: int, *, tiles_down: int, steps: int = 1) -> NDArray[np.uint8]:
    """Tiles [N, side, side, 3] of a picture shrunk until `tiles_down` fill its shorter side.

    Rows from the top, each from the left, one tile every `side // steps` pixels; flat tiles are
    left out.
    """
    scale = side * tiles_down / min(picture.size)
    # Half a pixel too few would cost a whole row of tiles.
    width, height = (max(side * tiles_down, round(length * scale)) for length in picture.size)
    small = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(small), (side, side), (0, 1))
    step = max(1, side // steps)
    grid = np.moveaxis(windows[::step, ::step], 2, -1).reshape(-1, side, side, 3)
    kept: NDArray[np.uint8] = grid[grid.mean(-1).std((1, 2)) >= _FLAT]
    return kept
