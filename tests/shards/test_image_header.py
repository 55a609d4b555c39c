from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabel.shards.errors import ImageError
from softlabel.shards.image_header import Header, read_header
from softlabel.shards.orientation import exif_orientation


@given(
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\xff\0\0\0WEBPVP8X"]),
    st.binary(),
)
def test_any_bytes_have_a_header_or_an_image_error(start, rest):
    with suppress(ImageError):
        read_header(start + rest, max_pixels=10**9)


@given(st.sampled_from([b"", b"II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08"]), st.binary())
def test_any_exif_has_an_orientation(start, rest):
    assert exif_orientation(start + rest) in range(1, 9)


@pytest.mark.parametrize("kind", [b"\0\3", b"\0\4", b"\0\1"])
def test_orientation_is_read_from_every_integer_type(kind):
    value = {b"\0\3": b"\0\6\0\0", b"\0\4": b"\0\0\0\6", b"\0\1": b"\6\0\0\0"}[kind]
    exif = b"MM\0*\0\0\0\x08\0\1\1\x12" + kind + b"\0\0\0\1" + value
    assert exif_orientation(exif) == 6
    assert exif_orientation(b"Exif\0\0" + exif) == 6


def test_metadata_is_left_out_and_nothing_else():
    header = Header("JPEG", 1, 1, 1, False, ((2, 4), (4, 5), (8, 10)))
    assert header.without_metadata(b"0123456789") == b"01567"
    assert header._replace(metadata=()).without_metadata(b"0123") == b"0123"
