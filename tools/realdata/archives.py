"""Read files out of packages without unpacking or installing them: npm's .tgz, Debian's .deb."""

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from softlabel.shards.errors import IdentityError

Wanted = Callable[[str], bool]
"""Whether the file of this name in the archive is to be read."""

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60


def tgz_files(path: Path, wanted: Wanted) -> dict[str, bytes]:
    """The wanted files of an npm package, by name, in the order of their names."""
    with tarfile.open(path, "r:gz") as tar:
        return _files(tar, wanted)


def deb_files(path: Path, wanted: Wanted) -> dict[str, bytes]:
    """The wanted files of a Debian package, by name (`./usr/...`), in the order of their names.

    Symbolic links are left out: what they point to is in the package under its own name.

    Raises:
        IdentityError: not a .deb, or one whose files are not packed with xz.
    """
    for name, data in ar_members(path.read_bytes()):
        if name == "data.tar.xz":
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:xz") as tar:
                return _files(tar, wanted)
    raise IdentityError(f"{path.name}: wanted a Debian package with data.tar.xz, found none")


def ar_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each member of a Unix ar archive, as dpkg writes them (short names)."""
    if not data.startswith(_AR_MAGIC):
        return
    position = len(_AR_MAGIC)
    while position + _AR_HEADER_BYTES <= len(data):
        header = data[position : position + _AR_HEADER_BYTES]
        start = position + _AR_HEADER_BYTES
        size_bytes = int(header[48:58])
        yield header[:16].decode().rstrip(" /"), data[start : start + size_bytes]
        position = start + size_bytes + size_bytes % 2  # members begin at even offsets


def _files(tar: tarfile.TarFile, wanted: Wanted) -> dict[str, bytes]:
    found = {}
    for member in tar:
        if member.isfile() and wanted(member.name):
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
    return dict(sorted(found.items()))
