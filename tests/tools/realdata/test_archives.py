import io
import lzma
import shutil
import subprocess
import tarfile

import pytest

from softlabel.shards.errors import IdentityError
from softlabel.tools.realdata.archives import ar_members, deb_files, tgz_files

FILES = {"./usr/b.png": b"second", "./usr/a.png": b"first", "./usr/doc": b"no picture"}


def tar_of(files, links=()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "b.png"
            tar.addfile(info)
    return buffer.getvalue()


def ar_of(members) -> bytes:
    """An archive as deb(5) describes it: 60 bytes of text before each member, even offsets."""
    data = b"!<arch>\n"
    for name, content in members.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        data += b"\n" * (len(content) % 2)
    return data


def deb_of(files, links=(), packed="data.tar.xz") -> bytes:
    data = lzma.compress(tar_of(files, links))
    return ar_of({"debian-binary": b"2.0\n", "control.tar.xz": b"odd", packed: data})


def is_png(name):
    return name.endswith(".png")


def test_a_debian_package_gives_its_files_in_order_of_name_and_no_links(tmp_path):
    path = tmp_path / "thing.deb"
    path.write_bytes(deb_of(FILES, links=["./usr/link.png"]))
    read = deb_files(path, is_png)
    assert list(read.items()) == [("./usr/a.png", b"first"), ("./usr/b.png", b"second")]


def test_members_after_an_odd_one_are_found(tmp_path):
    members = {"one": b"1", "two": b"", "three/": b"333", "four": b"4444"}
    read = dict(ar_members(ar_of(members)))
    assert read == {name.rstrip("/"): data for name, data in members.items()}


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="NOT TESTED: no dpkg-deb here")
def test_what_dpkg_itself_packs_is_read(tmp_path):
    (tmp_path / "thing/DEBIAN").mkdir(parents=True)
    control = "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: a\n"
    (tmp_path / "thing/DEBIAN/control").write_text(control)
    (tmp_path / "thing/a.png").write_bytes(b"first")
    command = ("dpkg-deb", "-Zxz", "--root-owner-group", "--build", "thing", "thing.deb")
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert deb_files(tmp_path / "thing.deb", is_png) == {"./a.png": b"first"}


@pytest.mark.parametrize("data", [b"", b"not an archive", deb_of(FILES, packed="data.tar.zst")])
def test_anything_else_is_refused_in_one_line(data, tmp_path):
    (tmp_path / "thing.deb").write_bytes(data)
    with pytest.raises(IdentityError, match=r"thing\.deb: wanted .* with data\.tar\.xz"):
        deb_files(tmp_path / "thing.deb", is_png)


def test_an_npm_package_gives_its_files_in_order_of_name(tmp_path):
    with tarfile.open(tmp_path / "thing.tgz", "w:gz") as tar:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert list(tgz_files(tmp_path / "thing.tgz", is_png)) == ["./usr/a.png", "./usr/b.png"]
