"""What an image file says before a pixel is decoded: format, size, orientation, odd or plain.

Both decoders read this header and no other, so they refuse the same files, in the same words.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

from softlabel.shards.errors import ImageError
from softlabel.shards.orientation import UPRIGHT, exif_orientation
from softlabel.shards.status import Status

_EXIF = b"Exif\0\0"
# Found first, in this order: what else people put under .jpg, so that the reason can name it.
_OTHER_FORMATS = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "PSD"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"PK\3\4", "a zip archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (0, b"<", "markup (HTML, XML or SVG)"),
)
# JPEG: metadata segments that no pixel depends on. APP0 (JFIF) and APP14 (Adobe) say the colours.
_JPEG_METADATA = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))
_JPEG_WITHOUT_LENGTH = frozenset((0x00, 0x01, *range(0xD0, 0xD8)))
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_COMMON_FRAMES = frozenset((0xC0, 0xC1, 0xC2))  # baseline, extended, progressive
_JPEG_TAIL_BYTES = 64  # some writers pad after the end mark
_PNG_ANCILLARY = 0x20  # the lower-case bit of a chunk type's first letter
_WEBP_HAS_EXIF = 0x08

Span = tuple[int, int]


class Header(NamedTuple):
    """One JPEG, PNG or WebP file, before decoding."""

    format: str
    height: int
    """As stored, like `width`: before `orientation` turns it upright."""
    width: int
    orientation: int
    """EXIF's 1 to 8."""
    plain: bool
    """A whole JPEG of the common kinds, in grey or RGB: all libraries decode it alike."""
    metadata: tuple[Span, ...]
    """Byte ranges without which the picture is the same."""

    def without_metadata(self, data: bytes) -> bytes:
        """The file with nothing in it but what makes pixels.

        Corrupt EXIF makes Pillow warn, compressed text can make it refuse, and a colour profile
        makes libpng print: none of it may decide what becomes of an image.
        """
        if not self.metadata:
            return data
        parts = []
        position = 0
        for start, stop in self.metadata:
            parts.append(data[position:start])
            position = stop
        parts.append(data[position:])
        return b"".join(parts)


def read_header(data: bytes, *, max_pixels: int) -> Header:
    """Walk a file's own structure up to its pixels.

    Raises:
        ImageError: TOO_LARGE above `max_pixels`; UNDECODABLE for another format than JPEG, PNG and
            WebP, and for a file that is cut short or contradicts itself.
    """
    format, walk = _format(data)
    try:
        header = walk(data)
    except (struct.error, IndexError):  # the file ends inside a field
        raise _undecodable(format, "file is cut short") from None
    if min(header.height, header.width) < 1:
        raise _undecodable(format, f"size is {header.width}x{header.height}")
    if header.height * header.width > max_pixels:
        raise ImageError(
            Status.TOO_LARGE,
            f"{format} of {header.width}x{header.height} pixels, limit is {max_pixels} pixels",
        )
    return header


def _format(data: bytes) -> tuple[str, Callable[[bytes], Header]]:
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG", _jpeg
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG", _png
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP", _webp
    if not data:
        found = "an empty file"
    else:
        start = data[:16]
        found = f"unknown bytes {start[:8].hex()}"
        for offset, magic, name in _OTHER_FORMATS:
            if start.startswith(magic, offset):
                found = name
                break
    raise ImageError(Status.UNDECODABLE, f"wanted JPEG, PNG or WebP, found {found}")


def _undecodable(format: str, problem: str) -> ImageError:
    return ImageError(Status.UNDECODABLE, f"{format}: {problem}")


def _jpeg(data: bytes) -> Header:
    """Segments up to the first scan, read as libjpeg does: filler between them is skipped."""
    frame = None
    orientation = UPRIGHT
    metadata = []
    position = 2
    while True:
        found = data.find(b"\xff", position)
        if found < 0:
            raise IndexError
        if found > position:
            metadata.append((position, found))
        position = found
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _JPEG_WITHOUT_LENGTH:
            metadata.append((position, position + 2))
            position += 2
            continue
        if marker == 0xDA:
            break
        if marker in (0xD8, 0xD9):
            raise _undecodable("JPEG", "no picture before its end")
        stop = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
        if stop > len(data):
            raise IndexError
        if marker in _JPEG_FRAMES:
            if frame is not None:
                raise _undecodable("JPEG", "two frame headers")
            frame = (marker, *struct.unpack_from(">BHHB", data, position + 4))
        elif marker in _JPEG_METADATA:
            metadata.append((position, stop))
            if marker == 0xE1 and data.startswith(_EXIF, position + 4) and orientation == UPRIGHT:
                orientation = exif_orientation(data[position + 4 : stop])
        position = stop
    if frame is None:
        raise _undecodable("JPEG", "no frame header before its first scan")
    marker, precision, height, width, components = frame
    plain = (
        marker in _JPEG_COMMON_FRAMES
        and precision == 8
        and components in (1, 3)
        and b"\xff\xd9" in data[-_JPEG_TAIL_BYTES:]
    )
    return Header("JPEG", height, width, orientation, plain, tuple(metadata))


def _png(data: bytes) -> Header:
    """Every chunk up to IEND; of an animation the pixels are the still picture in IDAT."""
    width, height = struct.unpack_from(">II", data, 16)
    if data[12:16] != b"IHDR":
        raise _undecodable("PNG", "first chunk is not IHDR")
    orientation = UPRIGHT
    metadata = []
    position = 8
    while True:
        length, kind = struct.unpack_from(">I4s", data, position)
        stop = position + 12 + length
        if stop > len(data):
            raise IndexError
        if kind == b"IEND":
            break
        if kind == b"IHDR" and position != 8:
            raise _undecodable("PNG", "two IHDR chunks")
        if kind[0] & _PNG_ANCILLARY:
            metadata.append((position, stop))
            if kind == b"eXIf":
                orientation = exif_orientation(data[position + 8 : stop - 4])
        position = stop
    return Header("PNG", height, width, orientation, False, tuple(metadata))


def _webp(data: bytes) -> Header:
    """The canvas size, and EXIF where the extended header announces it."""
    if struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise IndexError
    kind = data[12:16]
    orientation = UPRIGHT
    if kind == b"VP8X":
        flags, width_low, width_high, height_low, height_high = struct.unpack_from(
            "<B3xHBHB", data, 20
        )
        width = (width_high << 16 | width_low) + 1
        height = (height_high << 16 | height_low) + 1
        if flags & _WEBP_HAS_EXIF:
            orientation = _webp_orientation(data)
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        raise _undecodable("WebP", f"first chunk is {kind!r}")
    return Header("WebP", height, width, orientation, False, ())


def _webp_orientation(data: bytes) -> int:
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        if kind == b"EXIF":
            return exif_orientation(data[position + 8 : position + 8 + length])
        position += 8 + length + length % 2
    return UPRIGHT
