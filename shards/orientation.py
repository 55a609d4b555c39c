"""EXIF orientation: how a stored picture must be turned to stand upright."""

import struct

UPRIGHT = 1
_PREFIX = b"Exif\0\0"
_ORIENTATION_TAG = 0x0112
_ENTRY_BYTES = 12
_VALUE_FORMATS = {1: "B", 3: "H", 4: "I"}


def exif_orientation(exif: bytes) -> int:
    """1 to 8 from an EXIF block, with or without its prefix; 1 where it says nothing sensible.

    Only EXIF's own tag counts, as in browsers: no XMP, no thumbnail's directory.
    """
    while exif.startswith(_PREFIX):
        exif = exif[len(_PREFIX) :]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return UPRIGHT
    try:
        start = struct.unpack_from(order + "I", exif, 4)[0]
        count = struct.unpack_from(order + "H", exif, start)[0]
        for entry in range(start + 2, start + 2 + count * _ENTRY_BYTES, _ENTRY_BYTES):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == _ORIENTATION_TAG:
                value = struct.unpack_from(order + _VALUE_FORMATS[kind], exif, entry + 8)[0]
                return int(value) if 1 <= value <= 8 else UPRIGHT
    except (struct.error, KeyError):  # cut short, or a type that no camera writes
        pass
    return UPRIGHT
