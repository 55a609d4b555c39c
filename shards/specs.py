"""What users write after --shards, as a list of tars, and how a tar is opened."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit, urlunsplit

from softlabel.shards.errors import MachineError, TarError, UsageError

_LISTED = 6


def expand(spec: str | Sequence[str], *, allow_pipe: bool = False) -> list[str]:
    """The tars that a spec names, in order.

    A spec is a tar, braces (`train-{0000..0099}.tar`), several joined by `::`, a folder (its *.tar
    sorted by name), a file with one tar a line, or `-` for such lines on standard input. Schemes
    other than local paths go to fsspec; `pipe:` needs `allow_pipe` and never comes from a list.

    Raises:
        UsageError: nothing there, a tar named twice, a compressed tar, a pipe without leave.
    """
    parts = [spec] if isinstance(spec, str) else list(spec)
    tars = [tar for part in parts for tar in _expand_one(part)]
    if not tars:
        raise UsageError(f"--shards: wanted at least one tar, {' '.join(parts)!r} names none")
    for tar in tars:
        if tar.startswith("pipe:") and not allow_pipe:
            raise UsageError(
                f"--shards: {tar!r} runs a shell command; add --allow-pipe to allow it"
            )
        if tar.endswith((".gz", ".tgz", ".bz2", ".xz", ".zst")):
            raise UsageError(
                f"--shards: wanted plain tars, found the compressed {redacted(tar)}; images are "
                "read by their offset, which compression forbids: decompress it first"
            )
    _refuse_twice(tars)
    _refuse_missing(tars)
    return tars


def _expand_one(spec: str) -> Iterator[str]:
    if spec.startswith("pipe:"):
        yield spec
        return
    from braceexpand import braceexpand

    for part in spec.split("::") if "::" in spec else [spec]:
        try:
            names = list(braceexpand(part))
        except ValueError as error:
            raise UsageError(f"--shards: {part!r} has braces that do not match: {error}") from None
        for name in names:
            yield from _one_name(name)


def _one_name(name: str) -> Iterator[str]:
    if name == "-":
        yield from _lines(sys.stdin.read(), "standard input")
    elif not is_local(name):
        yield name
    elif (path := Path(local_path(name))).is_dir():
        found = sorted(str(p) for p in path.iterdir() if p.suffix == ".tar")
        if not found:
            raise UsageError(f"--shards: wanted *.tar files, the folder {name} has none")
        yield from found
    elif path.is_file() and path.suffix in {".txt", ".list"}:
        yield from _lines(path.read_text(), name)
    else:
        yield str(path)


def _lines(text: str, source: str) -> Iterator[str]:
    for line in text.splitlines():
        name = line.strip()
        if name.startswith("pipe:"):
            raise UsageError(f"{source}: {name!r} runs a shell command; lists may not hold pipes")
        if name and not name.startswith("#"):
            yield local_path(name) if is_local(name) else name


def _refuse_twice(tars: Sequence[str]) -> None:
    twice = (
        sorted({tar for tar in tars if tars.count(tar) > 1}) if len(set(tars)) < len(tars) else []
    )
    if twice:
        raise UsageError(f"--shards: each tar once, found twice: {_some(twice)}")


def _refuse_missing(tars: Sequence[str]) -> None:
    missing = [t for t in tars if is_local(t) and not Path(t).is_file()]
    if missing:
        raise UsageError(
            f"--shards: {len(missing)} of {len(tars)} tars not found: {_some(missing)}; "
            "check the spec (quote braces so that the shell leaves them alone)"
        )


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(redacted(name) for name in names[:_LISTED])
    return shown + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def is_local(tar: str) -> bool:
    """Whether a tar is a path on this machine, `file:` included."""
    return not tar.startswith("pipe:") and ("://" not in tar or tar.startswith("file://"))


def local_path(tar: str) -> str:
    """The path of a local tar without its scheme."""
    return os.path.normpath(tar.removeprefix("file://"))


def redacted(tar: str) -> str:
    """The tar's name without user, password and query string, which can hold secrets."""
    if is_local(tar) or tar.startswith("pipe:"):
        return tar
    parts = urlsplit(tar)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def open_tar(tar: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """The tar opened for reading from its start, and its length where that is known.

    Raises `TarError` where it cannot be opened.
    """
    if tar.startswith("pipe:"):
        with _pipe(tar) as stream:
            yield stream, None
        return
    file, size = _open_local(tar) if is_local(tar) else _open_remote(tar)
    with file:
        yield file, size


def _open_local(tar: str) -> tuple[BinaryIO, int]:
    try:
        file = Path(local_path(tar)).open("rb", buffering=1 << 20)  # noqa: SIM115
        return file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise TarError(f"{tar}: can't be opened: {error.strerror}") from None


def _open_remote(tar: str) -> tuple[BinaryIO, int | None]:
    import fsspec

    try:
        opened = fsspec.open(tar, "rb")
        return cast(BinaryIO, opened.open()), opened.fs.size(opened.path)
    except ImportError as error:
        raise MachineError(f"{redacted(tar)}: {error}; install what it names") from None
    except ValueError as error:  # an unknown scheme
        raise UsageError(f"{redacted(tar)}: {error}") from None
    except OSError as error:
        raise TarError(f"{redacted(tar)}: can't be opened: {error}") from None


@contextmanager
def _pipe(tar: str) -> Iterator[BinaryIO]:
    command = tar.removeprefix("pipe:")
    with subprocess.Popen(command, shell=True, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield cast(BinaryIO, process.stdout)
        if process.wait():
            raise TarError(f"{tar}: the command ended with exit code {process.returncode}")
