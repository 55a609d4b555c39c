"""The headers of a tar, walked block by block so that no damage passes for an end.

The standard library and webdataset take a damaged or cut header for the end of the archive and
return what came before without a word. Here a tar ends at two zero blocks followed by nothing but
zeros, at its known length, or `TarError` says at which byte it does not. Formats: POSIX.1-2001
(pax), POSIX.1-1988 (ustar), GNU and v7, as the tar(5) manual page has them.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from softlabel.shards.errors import TarError

BLOCK = 512
_READ = 1 << 20
_LARGEST_NAME = 1 << 20
_REGULAR = {b"0", b"\0", b"7"}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\x04\x22\x4d\x18": "lz4",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file in a tar: its payload is bytes [offset, offset + size)."""

    name: str
    offset: int
    size: int


class TarStream:
    """The bytes of one tar in order, hashed on the way; `name` is for messages.

    With `hashed=False` payloads are skipped by seeking where the file can: to count, not to read.
    """

    def __init__(self, file: BinaryIO, *, name: str, size: int | None, hashed: bool = True) -> None:
        self.name = name
        self.position = 0
        self._file = file
        self._size = size
        self._digest = hashlib.sha256() if hashed else None

    @property
    def sha256(self) -> str:
        """Of all bytes read so far, as 64 hex digits."""
        assert self._digest is not None
        return self._digest.hexdigest()

    def damaged(self, what: str) -> TarError:
        """The error for damage found at the present position."""
        return TarError(
            f"{self.name}: {what} at byte {self.position:,}; the tar is damaged or was cut short: "
            "fetch or write it again, then rerun the same command"
        )

    def read_some(self, count: int) -> bytes:
        """Up to `count` bytes; fewer only at the end of the file."""
        parts = []
        while count > 0:
            try:
                data = self._file.read(count)
            except OSError as error:
                raise TarError(f"{self.name}: can't be read: {error.strerror or error}") from None
            if not data:
                break
            parts.append(data)
            count -= len(data)
            self.position += len(data)
            if self._digest is not None:
                self._digest.update(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes, or `TarError`."""
        if self._size is not None and self.position + count > self._size:
            raise self.damaged(f"wanted {count:,} more bytes, the file has {self._rest():,},")
        data = self.read_some(count)
        if len(data) != count:
            raise self.damaged(f"wanted {count:,} more bytes, found {len(data):,},")
        return data

    def skip(self, count: int) -> None:
        """Pass over `count` bytes; they must be there."""
        if self._digest is None and self._size is not None and self._file.seekable():
            if count > self._rest():
                raise self.damaged(f"wanted {count:,} more bytes, the file has {self._rest():,},")
            self._file.seek(count, 1)
            self.position += count
            return
        while count:
            count -= len(self.read(min(count, _READ)))

    def _rest(self) -> int:
        assert self._size is not None
        return self._size - self.position

    def finish(self) -> None:
        """Read what follows the end marker: zeros only, up to the known length."""
        while tail := self.read_some(_READ):
            if tail.count(0) != len(tail):
                raise self.damaged("data after the end marker (two tars joined into one?)")
        if self._size is not None and self.position != self._size:
            raise self.damaged(f"wanted {self._size:,} bytes, the stream ended")


def entries(stream: TarStream) -> Iterator[Entry]:
    """The regular files of a tar in order; the caller may read each payload before the next.

    Links, devices and folders are passed over. Raises `TarError` for anything but a whole,
    uncompressed tar.
    """
    long_name: str | None = None
    pax: dict[str, str] = {}
    while True:
        header = stream.read_some(BLOCK)
        if stream.position == len(header):
            _refuse_compressed(stream.name, header)
        if len(header) < BLOCK:
            raise stream.damaged("no end marker (two zero blocks): the file ends")
        if header.count(0) == BLOCK:
            if stream.read(BLOCK).count(0) != BLOCK:
                raise stream.damaged("a lone zero block instead of an end marker")
            stream.finish()
            return
        _check_header(stream, header)
        kind, size = header[156:157], _number(stream, header[124:136])
        if kind in {b"L", b"K", b"x", b"g"}:
            extra = _read_extra(stream, size)
            if kind == b"L":
                long_name = _text(extra)
            elif kind == b"x":
                pax = _pax_records(stream, extra)
            continue
        size = int(pax.get("size", size))
        name = pax.get("path") or long_name or _header_name(header)
        if kind == b"S" or "GNU.sparse.major" in pax or "GNU.sparse.map" in pax:
            raise stream.damaged(f"member {name!r} is a GNU sparse file, which is not supported,")
        long_name, pax = None, {}
        if kind not in _REGULAR:
            size = size if kind not in {b"1", b"2", b"3", b"4", b"5", b"6"} else 0
            stream.skip(_padded(size))
            continue
        start = stream.position
        # Asked for before the payload is needed: a cut inside it must not pass for an empty read.
        yield Entry(name, start, size)
        stream.skip(start + _padded(size) - stream.position)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _refuse_compressed(name: str, header: bytes) -> None:
    for magic, kind in _COMPRESSED.items():
        if header.startswith(magic):
            raise TarError(
                f"{name}: wanted a plain tar, found {kind} data; images are read by their offset, "
                "which compression forbids: decompress it first"
            )


def _check_header(stream: TarStream, header: bytes) -> None:
    stated = _number(stream, header[148:156])
    total = sum(header) - sum(header[148:156]) + 8 * 0x20
    if stated == total:
        return
    signed = total - 256 * sum(b > 127 for b in header[:148] + header[156:])
    if stated != signed:  # some old writers summed signed bytes
        stream.position -= BLOCK
        raise stream.damaged("a header whose checksum is wrong")


def _number(stream: TarStream, field: bytes) -> int:
    if field[0] & 0x80:  # GNU base-256, for sizes that octal digits can't hold
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] == 0xFF:
            raise stream.damaged("a negative size in a header")
        return value
    digits = field.split(b"\0", 1)[0].strip()
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise stream.damaged(f"a header field that is no octal number ({field!r})") from None


def _read_extra(stream: TarStream, size: int) -> bytes:
    if size > _LARGEST_NAME:
        raise stream.damaged(f"an extended header of {size:,} bytes")
    return stream.read(_padded(size))[:size]


def _pax_records(stream: TarStream, data: bytes) -> dict[str, str]:
    """Parse `length keyword=value\\n` records, where length counts the whole record."""
    records: dict[str, str] = {}
    while data.strip(b"\0"):
        digits, _, rest = data.partition(b" ")
        try:
            length = int(digits)
            keyword, equals, value = rest[: length - len(digits) - 1].partition(b"=")
        except ValueError:
            length, equals, value, keyword = 0, b"", b"", b""
        if not (equals and value.endswith(b"\n") and 0 < length <= len(data)):
            raise stream.damaged("a pax header that is not `length keyword=value` records")
        records[_text(keyword)] = _text(value[:-1])
        data = data[length:]
    if not records.get("size", "0").isdigit():
        raise stream.damaged("a pax header whose size is no number")
    return records


def _header_name(header: bytes) -> str:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and (prefix := _text(header[345:500])):
        return f"{prefix}/{name}"
    return name


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
