"""What becomes of image bytes, good and bad, in both decoders."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from softlabel.shards.decoders import DECODERS, open_decoder
from softlabel.shards.errors import ImageError
from softlabel.shards.image_header import read_header
from softlabel.shards.status import Status

MAX_PIXELS = 100_000
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def decoders():
    return {name: open_decoder(name, max_pixels=MAX_PIXELS) for name in DECODERS}


@pytest.fixture(params=DECODERS)
def decoder(request, decoders):
    return decoders[request.param]


def picture(height=45, width=61, mode="RGB"):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    image = coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    if mode.endswith("A"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def encode(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width, height):
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def with_png_chunk(data, kind, content):
    """The chunk stands right behind the header chunk."""
    return data[:33] + png_chunk(kind, content) + data[33:]


def with_jpeg_segment(data, marker, content):
    segment = bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content
    return data[:2] + segment + data[2:]


def pixels_of(found):
    return np.asarray(found.pixels)


def by_pillow(data):
    """What Pillow's own functions make of it, first frame, upright."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def outcome(decoder, data):
    try:
        return "ok", pixels_of(decoder.decode(data)).tobytes()
    except ImageError as error:
        return error.status, error.reason


OTHER = picture().rotate(180)
GOOD = {
    "jpeg": encode(picture(), "JPEG", quality=90),
    "jpeg 4:4:4": encode(picture(), "JPEG", quality=95, subsampling=0),
    "jpeg progressive": encode(picture(), "JPEG", progressive=True),
    "jpeg restarts": encode(picture(), "JPEG", restart_marker_blocks=2),
    "jpeg grey": encode(picture(mode="L"), "JPEG"),
    "jpeg cmyk": encode(picture(mode="CMYK"), "JPEG"),
    "jpeg as rgb": encode(picture(), "JPEG", keep_rgb=True),
    "jpeg padded": encode(picture(), "JPEG") + b"\0" * 20,
    "jpeg with trailer": encode(picture(), "JPEG") + b"trailer " * 50,
    "mpo": encode(picture(), "MPO", save_all=True, append_images=[OTHER]),
    "png": encode(picture(), "PNG"),
    "png grey": encode(picture(mode="L"), "PNG"),
    "png bits": encode(picture(mode="1"), "PNG"),
    "png grey alpha": encode(picture(mode="LA"), "PNG"),
    "png alpha": encode(picture(mode="RGBA"), "PNG"),
    "png palette": encode(picture(mode="P"), "PNG"),
    "png palette with one clear colour": encode(picture(mode="P"), "PNG", transparency=3),
    "png clear colour": encode(picture(), "PNG", transparency=(1, 2, 3)),
    "apng": encode(picture(), "PNG", save_all=True, append_images=[OTHER]),
    "apng with a still": encode(
        picture(), "PNG", save_all=True, append_images=[OTHER], default_image=True
    ),
    "webp": encode(picture(), "WEBP"),
    "webp lossless": encode(picture(), "WEBP", lossless=True),
    "webp alpha": encode(picture(mode="RGBA"), "WEBP"),
    "webp animation": encode(picture(), "WEBP", save_all=True, append_images=[OTHER]),
}


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_of_file_decodes_to_pillows_pixels(decoder, kind):
    found = decoder.decode(GOOD[kind])
    assert (found.height, found.width) == (45, 61)
    np.testing.assert_array_equal(pixels_of(found), by_pillow(GOOD[kind]))


def test_a_palette_with_alpha_bytes_decodes_without_a_warning(decoder):
    data = encode(picture(mode="P"), "PNG", transparency=bytes(range(200)))
    np.testing.assert_array_equal(
        pixels_of(decoder.decode(data)), np.asarray(picture(mode="P").convert("RGB"))
    )


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(decoder, format, orientation):
    data = encode(picture(), format, exif=turned(orientation))
    found = decoder.decode(data)
    expected = by_pillow(data)
    assert (found.height, found.width) == expected.shape[:2]
    np.testing.assert_array_equal(pixels_of(found), expected)


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II*\0",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"II*\0\xff\xff\xff\xff\1\0",
        b"MM\0*\0\0\0\x08\0\2\1\x12\0\3\0\0\0\1\0\x09\0\0",  # orientation 9
        b"MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\1\0\6\0\0",  # orientation as text
        b"MM\0*\0\0\0\x08\0\1\1\x1a\0\5\0\0\0\1\0\0\xff\xf0",  # a resolution beyond the end
    ],
)
def test_corrupt_exif_neither_turns_nor_warns_nor_fails(decoder, exif):
    data = with_jpeg_segment(encode(picture(), "JPEG"), 0xE1, b"Exif\0\0" + exif)
    expected = by_pillow(encode(picture(), "JPEG"))
    np.testing.assert_array_equal(pixels_of(decoder.decode(data)), expected)


def test_compressed_text_and_odd_metadata_do_not_matter(decoder):
    bomb = b"Comment\0\0" + zlib.compress(bytes(10**8))
    data = GOOD["png"]
    for kind, content in ((b"zTXt", bomb), (b"iCCP", b"?"), (b"cHRM", b"?"), (b"acTL", b"?")):
        data = with_png_chunk(data, kind, content)
    np.testing.assert_array_equal(pixels_of(decoder.decode(data)), by_pillow(GOOD["png"]))


def test_filler_before_a_jpeg_segment_does_not_matter(decoder):
    clean = GOOD["jpeg"]
    filled = clean[:2] + b"\xff\x01" + b"filler" + b"\xff\xff" + clean[2:]
    np.testing.assert_array_equal(pixels_of(decoder.decode(filled)), by_pillow(clean))


def test_sixteen_bit_grey_is_shifted_not_clipped(decoder):
    grey = np.arange(45 * 61, dtype=np.uint16).reshape(45, 61) * 23
    found = pixels_of(decoder.decode(encode(Image.fromarray(grey), "PNG")))
    np.testing.assert_array_equal(found, np.repeat((grey >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", [kind for kind in GOOD if "trailer" not in kind])
def test_a_truncated_file_is_undecodable(decoder, kind, share):
    whole = GOOD[kind].rstrip(b"\0")
    if kind == "mpo":
        whole = whole[: whole.index(b"\xff\xd8\xff", 2)]  # the second picture is never read
    with pytest.raises(ImageError) as caught:
        decoder.decode(whole[: int(share * (len(whole) - 1))])
    assert caught.value.status == Status.UNDECODABLE


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"x", "unknown bytes 78"),
        (encode(picture(), "GIF"), "GIF"),
        (encode(picture(), "BMP"), "BMP"),
        (encode(picture(), "TIFF"), "TIFF"),
        (encode(picture(), "AVIF"), "AVIF"),
        (encode(picture(), "PPM"), "unknown bytes 50360a36"),
        (b"<!DOCTYPE html><p>404</p>", "markup"),
        (b"%!PS-Adobe-3.0", "PostScript"),
        (b"RIFF\x10\0\0\0WAVEfmt ", "unknown bytes 52494646"),
    ],
)
def test_another_format_is_undecodable_and_named(decoder, data, found):
    with pytest.raises(ImageError, match=f"wanted JPEG, PNG or WebP, found {found}") as caught:
        decoder.decode(data)
    assert caught.value.status == Status.UNDECODABLE


def jpeg_of(height, width):
    data = bytearray(GOOD["jpeg"])
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def webp_of(height, width):
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    data = bytearray(GOOD["webp alpha"])
    assert data[12:16] == b"VP8X"
    data[24:30] = canvas
    return bytes(data)


def png_of(height, width):
    return b"\x89PNG\r\n\x1a\n" + png_header(width, height) + GOOD["png"][33:]


@pytest.mark.parametrize("build", [jpeg_of, png_of, webp_of])
def test_too_many_pixels_are_refused_by_the_header_alone(decoder, build, monkeypatch):
    for module in ("decode_pillow", "decode_torchvision"):
        monkeypatch.setattr(f"softlabel.shards.{module}.decode_image", None)
    with pytest.raises(ImageError, match="limit is 100000 pixels") as caught:
        decoder.decode(build(12000, 15000))
    assert caught.value.status == Status.TOO_LARGE


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(("width", "status"), [(1000, "ok"), (1001, Status.TOO_LARGE)])
def test_the_limit_itself_is_allowed(decoder, format, width, status):
    data = encode(Image.new("RGB", (width, 100)), format)
    assert outcome(decoder, data)[0] == status


def test_a_second_header_cannot_smuggle_a_larger_image_past_the_limit(decoder):
    small, large = png_header(10, 10), png_header(30000, 30000)
    png = b"\x89PNG\r\n\x1a\n" + small + large + GOOD["png"][33:]
    at = GOOD["jpeg"].index(b"\xff\xc0")
    jpeg = GOOD["jpeg"][:at] + GOOD["jpeg"][at : at + 19] + GOOD["jpeg"][at:]
    for data, reason in ((png, "PNG: two IHDR chunks"), (jpeg, "JPEG: two frame headers")):
        assert outcome(decoder, data) == (Status.UNDECODABLE, reason)


def test_a_size_that_the_library_reads_differently_is_undecodable(decoder, monkeypatch):
    module = f"softlabel.shards.decode_{decoder.name}.read_header"
    header = read_header(GOOD["jpeg"], max_pixels=10**9)
    monkeypatch.setattr(module, lambda data, max_pixels: header._replace(height=44))
    with pytest.raises(ImageError, match="header says") as caught:
        decoder.decode(GOOD["jpeg"])
    assert caught.value.status == Status.UNDECODABLE


@pytest.mark.parametrize("build", [jpeg_of, png_of])
def test_a_size_of_zero_is_undecodable(decoder, build):
    with pytest.raises(ImageError, match="size is 10x0") as caught:
        decoder.decode(build(0, 10))
    assert caught.value.status == Status.UNDECODABLE


def test_damage_in_a_png_is_an_error_and_not_the_end_of_the_process(decoder):
    damaged = bytearray(GOOD["png"])
    damaged[len(damaged) // 2] ^= 4
    assert outcome(decoder, bytes(damaged))[0] == Status.UNDECODABLE


def mutated(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(min(len(data), 300) if rng.random() < 0.5 else len(data))
        match rng.randrange(4):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                del data[at : at + rng.randrange(1, 20)]
            case 3:
                data[at:at] = rng.randbytes(rng.randrange(1, 20))
    return bytes(data)


@pytest.mark.parametrize("kind", ["jpeg", "jpeg progressive", "mpo", "png palette", "apng", "webp"])
def test_damaged_files_end_alike_in_both_decoders_and_never_otherwise(decoders, kind):
    rng = random.Random(kind)
    for _ in range(150):
        data = mutated(rng, GOOD[kind])
        pillow, torchvision = (outcome(decoder, data) for decoder in decoders.values())
        assert pillow == torchvision
