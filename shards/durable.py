"""Local files that are either whole and on disk, or not there.

Every write goes to a temporary name first and is flushed before it gets its own; a power cut leaves
at worst a temporary file, which `remove_leftovers` knows by its ending.
"""

import os
import secrets
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from softlabel.shards.failpoints import reached

TEMPORARY = ".tmp"
_HOST = f"{zlib.crc32(os.uname().nodename.encode()):08x}"
_ABANDONED_S = 86_400.0
_FLUSHES = 16


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f"{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY}")


def _write_temporary(path: Path, data: bytes) -> Path:
    temporary = _temporary_name(path)
    with temporary.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def replace_all(files: Mapping[Path, bytes]) -> None:
    """Write files whole and durably, over whatever was there.

    All are flushed at once: side by side the disk takes 11 flushes in the time of one (80 ms to
    4 ms a tar). After a kill some files may be new and others old, never torn.
    """
    temporaries: dict[Path, Path] = {}
    with ThreadPoolExecutor(max(1, min(len(files), _FLUSHES))) as pool:
        try:
            for path, data in files.items():
                temporaries[path] = _temporary_name(path)
                temporaries[path].write_bytes(data)
            list(pool.map(_flush, temporaries.values()))
            reached("data-synced")
            for path, temporary in temporaries.items():
                temporary.replace(path)
                reached("array-written")
            list(pool.map(sync_directory, {path.parent for path in files}))
        except OSError:
            for temporary in temporaries.values():
                temporary.unlink(missing_ok=True)
            raise


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def put_if_absent(path: Path, data: bytes) -> bool:
    """Write `path` whole and durably unless it exists; False if it did, which is then untouched."""
    temporary = _write_temporary(path, data)
    try:
        reached("temporary-synced")
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    reached("linked")
    sync_directory(path.parent)
    return True


def _writer_is_gone(temporary: Path) -> bool:
    """Another host's writers can't be asked: theirs count as gone after a day."""
    host, pid, _ = temporary.name.removesuffix(TEMPORARY).rpartition(".")[2].split("-")
    if host != _HOST:
        return time.time() - temporary.stat().st_mtime > _ABANDONED_S
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(pid) == os.getpid()


def remove_leftovers(directory: Path) -> int:
    """Delete the temporary files that killed writers left in `directory`; how many.

    To be called before this process writes there: its own process id then means an earlier one's.
    """
    removed = 0
    for path in directory.glob(f"*{TEMPORARY}"):
        try:
            if _writer_is_gone(path):
                path.unlink()
                removed += 1
        except (FileNotFoundError, ValueError):
            continue
    return removed
