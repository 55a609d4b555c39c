import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softlabel.shards.errors import TarError
from softlabel.shards.tars import BLOCK, TarStream, entries

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def stream(data: bytes, *, size: int | None = None, hashed: bool = True) -> TarStream:
    return TarStream(io.BytesIO(data), name="t.tar", size=size, hashed=hashed)


def make(files: dict[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def names_and_payloads(data: bytes) -> dict[str, bytes]:
    source = stream(data, size=len(data))
    return {entry.name: source.read(entry.size) for entry in entries(source)}


@pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
def test_every_format_gives_the_names_and_payloads_that_were_written(format):
    long = (
        "d" * 90 + "/" + "f" * 150 + ".jpg" if format != FORMATS["ustar"] else "d/" * 40 + "f.jpg"
    )
    files = {"a.jpg": b"x" * 700, long: b"", "ü.png": bytes(range(256)) * 2}
    assert names_and_payloads(make(files, format)) == files


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=120),
        st.binary(max_size=1500),
        max_size=6,
    ),
    st.sampled_from([FORMATS["gnu"], FORMATS["pax"]]),
)
def test_our_reader_sees_what_the_standard_library_wrote(files, format):
    assert names_and_payloads(make(files, format)) == files


@given(st.binary(min_size=1, max_size=600))
def test_offset_and_size_are_where_the_payload_lies(payload):
    data = make({"a.jpg": b"first", "b.jpg": payload})
    for entry in entries(stream(data)):
        assert data[entry.offset : entry.offset + entry.size] in {b"first", payload}


def test_links_folders_and_devices_are_passed_over():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("odd.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("good.jpg")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
    assert names_and_payloads(buffer.getvalue()) == {"good.jpg": b"x"}


@pytest.mark.parametrize("known_size", [True, False])
def test_every_cut_at_a_block_boundary_is_found(known_size):
    data = make({f"{i}.jpg": bytes([i]) * 600 for i in range(5)})
    end = 5 * (BLOCK + 1024) + 2 * BLOCK
    for cut in range(0, end, BLOCK):
        size = len(data) if known_size else None
        with pytest.raises(TarError, match=r"t\.tar"):
            list(entries(stream(data[:cut], size=size)))
    assert len(list(entries(stream(data[:end])))) == 5


def test_a_flipped_bit_of_a_header_is_found_unless_it_means_nothing():
    files = {"a.jpg": b"1" * 600, "b.jpg": b"2" * 600}
    data = make(files)
    missed = []
    second = BLOCK + 1024
    for position in range(second, second + BLOCK):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        try:
            assert names_and_payloads(bytes(damaged)) == files
            missed.append(position - second)
        except TarError:
            continue
    # In the checksum itself: its leading zero became a space, and the byte behind its terminator.
    assert missed == [148, 155]


def test_two_joined_tars_are_refused_rather_than_cut_short():
    data = make({"a.jpg": b"1"})
    with pytest.raises(TarError, match="after the end marker"):
        list(entries(stream(data + data)))


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08\0", b"BZh9", b"\x28\xb5\x2f\xfd"])
def test_compressed_data_is_named_and_refused(magic):
    with pytest.raises(TarError, match="decompress it first"):
        list(entries(stream(magic + bytes(2000))))


def test_an_empty_file_is_no_tar():
    with pytest.raises(TarError, match="no end marker"):
        list(entries(stream(b"", size=0)))


def test_a_size_beyond_octal_is_read():
    info = tarfile.TarInfo("big.bin")
    info.size = 9 * 1024**3
    header = info.tobuf(tarfile.GNU_FORMAT)
    entry = next(entries(stream(header + bytes(BLOCK), hashed=False)))
    assert (entry.name, entry.size) == ("big.bin", 9 * 1024**3)


def test_the_hash_covers_every_byte(tmp_path: Path):
    import hashlib

    data = make({"a.jpg": b"1" * 5000, "dir/b.txt": b"2"})
    source = stream(data, size=len(data))
    list(entries(source))
    assert source.sha256 == hashlib.sha256(data).hexdigest()
    assert source.position == len(data)


def test_counting_without_reading_finds_the_same_damage():
    data = make({"a.jpg": b"1" * 5000, "b.jpg": b"2" * 10})
    assert len(list(entries(stream(data, size=len(data), hashed=False)))) == 2
    with pytest.raises(TarError):
        list(entries(stream(data[:3000], size=3000, hashed=False)))
