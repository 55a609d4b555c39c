import io
import json
import lzma
import tarfile

import numpy as np
import pytest
from PIL import Image

from softlabel.shards.errors import IdentityError, MachineError
from softlabel.tools.realdata import collections, fashion, glyphs, tiles
from softlabel.tools.realdata.collections import COLLECTIONS

RNG = np.random.default_rng(4)
DRAWN = ("letters", "patches", "noise")


def picture(height, width, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).save(buffer, format)
    return buffer.getvalue()


def packed(path, files):
    """An npm package, or a Debian one as far as its reader looks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = buffer.getvalue()
    if path.suffix == ".deb":
        data = lzma.compress(data)
        header = f"{'data.tar.xz':<48}{len(data):<10}`\n".encode()
        data = b"!<arch>\n" + header + data
    path.write_bytes(data)


CLOTHES = {
    f"package/src/clothes/{target}.json": json.dumps(
        {"data": [[], *([target] * 784 for _ in range(2 + (target == 3)))]}
    ).encode()
    for target in range(10)
}


@pytest.fixture
def packages(cache, tmp_path, monkeypatch):
    """Small packages of the real layout; how often each was fetched."""
    png, fetched = "./usr/share/art/{}.png", []
    contents = {
        "openclipart-png": {png.format(n): picture(9 + n, 12) for n in range(3)},
        "tuxpaint-stamps-default": {png.format(1): picture(9, 9), "./a.wav": b"sound"},
        "emoji-datasource-google": {
            "package/img/google/64/1f600.png": picture(64, 64),
            "package/img/google/sheets/16.png": picture(16, 16),
        },
        "mate-backgrounds": {
            "./usr/share/backgrounds/mate/a.jpg": picture(96, 128, "JPEG"),
            "./usr/share/backgrounds/mate/Elephants_3840x2160.jpg": b"a copy",
            "./usr/share/doc/mate.png": b"no wallpaper",
        },
        "lomiri-wallpapers-20.04": {"./usr/share/backgrounds/b.jpg": picture(96, 96, "JPEG")},
        "fashion-mnist": CLOTHES,
    }

    def fetch(package, *, say):
        fetched.append(package.name)
        path = tmp_path / package.file
        if not path.exists():
            packed(path, contents[package.name])
        return path

    for module in (collections, fashion, tiles):
        monkeypatch.setattr(module, "fetch", fetch)
    return fetched


def quiet(line):
    pass


@pytest.fixture
def any_clothes(monkeypatch):
    """Fashion-MNIST of these packages is not the published one."""
    monkeypatch.setattr(fashion, "load", lambda *, say: fashion.from_package(fashion.fetch(
        fashion.FASHION_MNIST, say=say)))  # fmt: skip


@pytest.mark.usefixtures("any_clothes")
@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_collection_is_square_rgb_of_any_side_and_grey_is_its_luma(name, packages):
    count = {"count": 50} if name in DRAWN else {}
    for side in (8, 13):
        images = COLLECTIONS[name](side, say=quiet, **count)
        assert (images.shape[1:], images.dtype) == ((side, side, 3), np.uint8)
        assert images.std() > 1
        again = COLLECTIONS[name](side, say=quiet, **count)
        np.testing.assert_array_equal(images, again)
        grey = COLLECTIONS[name](side, grey=True, say=quiet, **count)
        assert (grey == grey[..., :1]).all()
        if name != "noise":
            luma = [np.asarray(Image.fromarray(image).convert("L")) for image in images]
            np.testing.assert_array_equal(grey[..., 0], luma)
    # Each side is decoded once, whichever way it is asked for after that.
    assert len(packages) <= 2 * len(set(packages))


@pytest.mark.usefixtures("packages", "any_clothes")
def test_every_picture_that_belongs_is_there_and_nothing_else():
    sizes = {
        name: len(COLLECTIONS[name](8, say=quiet)) for name in COLLECTIONS if name not in DRAWN
    }
    wallpaper = 5 * 7 + 11 * 15 + 12 * 16 + 5 * 5 + 11 * 11 + 12 * 12
    assert sizes == {
        "fashion-mnist": 21,
        "openclipart": 3,
        "tuxpaint": 1,
        "emoji": 1,
        "wallpapers": wallpaper,
    }


@pytest.mark.usefixtures("packages")
def test_changed_code_reads_the_package_again(packages, monkeypatch, tmp_path):
    COLLECTIONS["emoji"](8, say=quiet)
    COLLECTIONS["emoji"](8, say=quiet)
    assert len(packages) == 1
    (tmp_path / "pictures.py").write_text("# other code")
    monkeypatch.setattr(collections.pictures, "__file__", str(tmp_path / "pictures.py"))
    COLLECTIONS["emoji"](8, say=quiet)
    assert len(packages) == 2


def test_a_collection_that_cannot_be_had_says_so_and_leaves_nothing(cache, monkeypatch):
    def fetch(package, *, say):
        raise MachineError("no network")

    monkeypatch.setattr(collections, "fetch", fetch)
    with pytest.raises(MachineError, match="no network"):
        COLLECTIONS["openclipart"](8)
    assert not cache.exists()


def test_a_cache_without_room_is_one_line_with_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="set SOFTLABEL_CACHE to a folder with room"):
        COLLECTIONS["letters"](8, 2)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", DRAWN)
def test_another_seed_or_count_is_another_set(name):
    first, second = (COLLECTIONS[name](8, 20, seed=seed) for seed in (0, 1))
    assert (first != second).any((1, 2, 3)).sum() >= 19
    assert len(COLLECTIONS[name](8, 21)) == 21


def test_letters_are_light_on_dark_and_lie_inside_the_image():
    images = glyphs.letters(28, 300).astype(float)
    assert (images.max((1, 2)) >= 0.7 * 255).all()
    assert np.median(images) == 0
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1)
    assert border.mean() < 0.2 * images.mean()
    # Antialiased: the same letter lies between its pixels too.
    assert ((images > 0) & (images < 128)).mean() > 0.03


def test_every_font_draws_every_letter_differently():
    for font in glyphs.FONTS:
        drawn = [glyph.resize((20, 20)).tobytes() for glyph in glyphs._glyphs(font, glyphs.LETTERS)]
        # c and C, o and O may be one shape of two sizes; a missing glyph would repeat a box.
        assert len(set(drawn)) >= 40, font


def test_noise_is_uniform_also_when_grey():
    for grey in (False, True):
        pixels = COLLECTIONS["noise"](8, 3000, grey=grey)[..., 0].ravel()
        counts = np.bincount(pixels, minlength=256)
        expected = len(pixels) / 256
        assert ((counts - expected) ** 2 / expected).sum() < 350  # 255 degrees of freedom


def test_tiles_are_the_picture_cut_up_and_flat_ones_are_missing():
    pixels = RNG.integers(0, 256, (24, 36, 3), np.uint8)
    pixels[8:16, 8:16] = 128
    found = tiles.cut(Image.fromarray(pixels), 8, tiles_down=3)
    boxes = [(y, x) for y in (0, 8, 16) for x in (0, 8, 16, 24) if (y, x) != (8, 8)]
    np.testing.assert_array_equal(found, [pixels[y : y + 8, x : x + 8] for y, x in boxes])


def test_clothes_that_are_not_fashion_mnist_are_refused(packages):
    with pytest.raises(IdentityError, match="wanted 7000 images a class"):
        fashion.load(say=quiet)


def test_clothes_come_with_their_classes_and_without_empty_rows(packages, any_clothes):
    split = fashion.load(say=quiet)
    np.testing.assert_array_equal(split.images[:, 0, 0, 0], split.targets)
    assert np.bincount(split.targets).tolist() == [2, 2, 2, 3, 2, 2, 2, 2, 2, 2]
