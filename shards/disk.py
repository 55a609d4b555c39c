"""How large a store will be, and whether the disk has room for it."""

import shutil
from pathlib import Path

import numpy as np

from softlabel.shards.errors import MachineError
from softlabel.shards.schema import Manifest

_MARGIN = 1.1


def raw_row_bytes(manifest: Manifest) -> int:
    """Bytes of one row in all arrays, before compression."""
    return sum(
        int(np.prod(manifest.row_shape(spec), dtype=np.int64)) * np.dtype(spec.dtype).itemsize
        for spec in manifest.arrays
    )


def free_bytes(path: Path) -> int:
    """Free space where `path` is or will be."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def require_free_space(path: Path, *, rows: int, manifest: Manifest) -> None:
    """MachineError unless `rows` more rows fit even uncompressed, with a tenth to spare."""
    needed = int(rows * raw_row_bytes(manifest) * _MARGIN)
    free = free_bytes(path)
    if needed > free:
        raise MachineError(
            f"{path}: {rows:,} rows take up to {needed / 1e9:,.2f} GB, the disk has "
            f"{free / 1e9:,.2f} GB free; make room, or use another --out, or fewer --views"
        )
