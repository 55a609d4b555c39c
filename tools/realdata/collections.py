"""Unlabelled images of other things than a teacher knows, as arrays of any side, kept in the cache.

Each function returns uint8 RGB [N, side, side, 3], the same on every call. `grey=True` makes luma
of the colours, three times. What can't be had here raises MachineError with the way out in one
line. The first call for a side decodes (seconds to half a minute); later ones read one file.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from softlabel.shards import durable
from softlabel.shards.cache import cache_folder
from softlabel.shards.errors import MachineError
from softlabel.tools.realdata import archives, crops, fashion, glyphs, pictures, tiles
from softlabel.tools.realdata.fetch import Say, fetch
from softlabel.tools.realdata.packages import (
    EMOJI,
    FASHION_MNIST,
    LOMIRI_WALLPAPERS,
    MATE_BACKGROUNDS,
    OPENCLIPART,
    TUXPAINT,
    Package,
)

Images = NDArray[np.uint8]

COUNT = 20_000
"""How many letters, patches and noise images there are unless told."""


def fashion_mnist(side: int, *, grey: bool = False, say: Say = print) -> Images:
    """70,000 pieces of clothing, class by class; `fashion.load` has their classes."""

    def build() -> Images:
        return pictures.resized(fashion.load(say=say).images[..., 0], side)

    return _kept(f"fashion-mnist-{side}", build, (FASHION_MNIST,), (fashion,), grey=grey)


def openclipart(side: int, *, grey: bool = False, say: Say = print) -> Images:
    """6,883 drawings: animals, food, flags, signs, people; 17 of more than 20 megapixels left out.

    Signs and playing cards show digits too.
    """

    def build() -> Images:
        return pictures.squares(
            archives.deb_files(fetch(OPENCLIPART, say=say), _png), side, say=say
        )

    return _kept(f"openclipart-{side}", build, (OPENCLIPART,), (archives,), grey=grey)


def tuxpaint(side: int, *, grey: bool = False, say: Say = print) -> Images:
    """796 stamps: animals, plants, food, vehicles, half of them photographs; digits are among them.

    Each is on white.
    """

    def build() -> Images:
        return pictures.squares(archives.deb_files(fetch(TUXPAINT, say=say), _png), side, say=say)

    return _kept(f"tuxpaint-{side}", build, (TUXPAINT,), (archives,), grey=grey)


def emoji(side: int, *, grey: bool = False, say: Say = print) -> Images:
    """3,786 emoji on white; many are one person in six shades, twelve keys show digits."""

    def wanted(name: str) -> bool:
        return name.startswith("package/img/google/64/") and _png(name)

    def build() -> Images:
        return pictures.squares(archives.tgz_files(fetch(EMOJI, say=say), wanted), side, say=say)

    return _kept(f"emoji-{side}", build, (EMOJI,), (archives,), grey=grey)


def wallpapers(side: int, *, grey: bool = False, say: Say = print) -> Images:
    """7,400 to 7,900 tiles, as the side decides, of 32 wallpapers: photographs and patterns."""
    packages = (MATE_BACKGROUNDS, LOMIRI_WALLPAPERS)

    def build() -> Images:
        return tiles.tiles(side, say=say)

    return _kept(f"wallpapers-{side}", build, packages, (tiles, archives), grey=grey)


def letters(
    side: int, count: int = COUNT, *, seed: int = 0, grey: bool = False, say: Say = print
) -> Images:
    """`count` letters A-Z and a-z, light on black, from 21 fonts; no download."""

    def build() -> Images:
        return glyphs.letters(side, count, seed=seed)

    return _kept(f"letters-{side}-{count}-{seed}", build, (), (glyphs,), grey=grey)


def patches(
    side: int, count: int = COUNT, *, seed: int = 0, grey: bool = False, say: Say = print
) -> Images:
    """`count` random crops of two photographs, a temple and a flower; no download."""

    def build() -> Images:
        return crops.patches(side, count, seed=seed)

    return _kept(f"patches-{side}-{count}-{seed}", build, (), (crops,), grey=grey)


def noise(
    side: int, count: int = COUNT, *, seed: int = 0, grey: bool = False, say: Say = print
) -> Images:
    """`count` images of independent uniform pixels; where `grey`, uniform too, not their luma."""
    rng = np.random.default_rng(seed)
    if grey:
        return np.repeat(rng.integers(0, 256, (count, side, side, 1), np.uint8), 3, axis=3)
    return rng.integers(0, 256, (count, side, side, 3), np.uint8)


COLLECTIONS: Mapping[str, Callable[..., Images]] = {
    "fashion-mnist": fashion_mnist,
    "openclipart": openclipart,
    "tuxpaint": tuxpaint,
    "emoji": emoji,
    "wallpapers": wallpapers,
    "letters": letters,
    "patches": patches,
    "noise": noise,
}
"""Every collection by name; all may be called as `load(side, grey=..., say=...)`."""


def _png(name: str) -> bool:
    return name.endswith(".png")


def _kept(
    name: str,
    build: Callable[[], Images],
    packages: Sequence[Package],
    code: Sequence[ModuleType],
    *,
    grey: bool,
) -> Images:
    """What this code made of these packages before, or makes now.

    `build` gives [N, side, side] for what is grey by nature, which takes a third of the room.
    """
    path = cache_folder() / "collections" / f"{name}-{_fingerprint(packages, code)}.npy"
    if path.exists():
        images: Images = np.load(path)
    else:
        images = build()
        _keep(path, images)
    if images.ndim == 3:
        return np.repeat(images[..., None], 3, axis=3)
    return pictures.grey(images) if grey else images


def _keep(path: Path, images: Images) -> None:
    buffer = io.BytesIO()
    np.save(buffer, images)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.remove_leftovers(path.parent)
        durable.replace_all({path: buffer.getvalue()})
    except OSError as error:
        raise MachineError(
            f"{path.parent}: wanted to keep {path.name} here, found: {error}; "
            "set SOFTLABEL_CACHE to a folder with room"
        ) from error


def _fingerprint(packages: Sequence[Package], code: Sequence[ModuleType]) -> str:
    """Changes with the packages, with the code that reads them, and with Pillow, which resizes."""
    digest = hashlib.sha256("".join(package.sha256 for package in packages).encode())
    digest.update(metadata.version("pillow").encode())
    for module in (*code, pictures):
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:12]
