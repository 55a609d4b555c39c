"""One row of a store: its member, the teacher's first classes, the tail, and the picture."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softlabel.shards.errors import IdentityError, UsageError
from softlabel.shards.hashing import image_hash, key_hash
from softlabel.shards.matching import match_tars
from softlabel.shards.specs import expand, is_local, local_path
from softlabel.shards.statistics import probabilities
from softlabel.shards.status import Status
from softlabel.shards.store import Store
from softlabel.tools.store_stats import class_name

_SHOWN = 5
_PICTURE_COLUMNS = 48


@dataclass(frozen=True)
class RowNumber:
    """Where a row is."""

    tar: int
    row: int


def find_rows(store: Store, *, key: str | None, row: str | None) -> list[RowNumber]:
    """The rows of a key, or the one row `T,R`; UsageError if there is none."""
    if (key is None) == (row is None):
        raise UsageError("show: wanted one of --key K and --row T,R")
    if row is not None:
        return [_parse(store, row)]
    wanted = np.uint64(key_hash(str(key)))
    found = [
        RowNumber(tar, int(index))
        for tar in store.commits()
        for index in np.flatnonzero(store.read(tar, ["key_hash"])["key_hash"] == wanted)
    ]
    if not found:
        raise UsageError(
            f"--key {key}: no labelled member has it; a key is the file's path in the tar up to "
            "the first dot of its name"
        )
    return found


def _parse(store: Store, text: str) -> RowNumber:
    try:
        tar, row = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--row: wanted T,R such as 0,17, found {text!r}") from None
    commit = store.commit(tar) if 0 <= tar < len(store.tars) else None
    if commit is None or not 0 <= row < commit.members:
        have = f"{commit.members} rows" if commit else f"{len(store.tars)} tars"
        raise UsageError(f"--row {text}: no such labelled row; there are {have}")
    return RowNumber(tar, row)


def describe(store: Store, place: RowNumber) -> dict[str, Any]:
    """A row as JSON has it."""
    manifest = store.manifest
    rows = {name: value[place.row] for name, value in store.read(place.tar).items()}
    head, tail = probabilities(
        rows["topk_logit"],
        rows["tail_lse"],
        temperatures=manifest.temperatures,
        temperature=max(1.0, min(manifest.temperatures)),
        num_not_stored=manifest.num_classes - manifest.top_k,
    )
    views = [
        {
            "view": view,
            "top": {
                class_name(store, int(rows["topk_class"][view, i])): float(head[view, i])
                for i in range(min(_SHOWN, manifest.top_k))
            },
            "tail": float(tail[view]),
            "max_logit": float(rows["max_logit"][view]),
        }
        for view in range(manifest.views)
    ]
    ok = rows["status"] == Status.OK
    return {
        "tar": store.tars[place.tar],
        "row": [place.tar, place.row],
        "status": Status(int(rows["status"])).name.lower(),
        "key_hash": f"{int(rows['key_hash']):016x}",
        "offset": int(rows["offset"]),
        "size": int(rows["size"]),
        "target": int(rows["target"]),
        "views": views if ok else [],
        "image_hash": f"{int(rows['image_hash']):016x}",
    }


def describe_lines(row: dict[str, Any]) -> Iterator[str]:
    """A row as people read it."""
    yield f"{row['tar']} row {row['row'][0]},{row['row'][1]}: {row['status'].replace('_', ' ')}"
    yield f"  {row['size']:,} bytes at {row['offset']:,}, target {row['target']}"
    for view in row["views"]:
        top = ", ".join(f"{name} {p:.3f}" for name, p in view["top"].items())
        yield f"  view {view['view']}: {top}; tail {view['tail']:.2e}"


def image_bytes(store: Store, place: RowNumber, shards: tuple[str, ...]) -> bytes | None:
    """The row's image from its tar: one of `shards`, or where the tar lay when it was labelled.

    None where the tar is not at hand; IdentityError if it holds other bytes than were labelled.
    """
    path = store.tars[place.tar]
    if shards:
        given = expand(shards)
        ordinals = match_tars(store.tars, given)
        if place.tar not in ordinals:
            return None
        path = given[ordinals.index(place.tar)]
    if not is_local(path) or not Path(local_path(path)).is_file():
        return None
    rows = store.read(place.tar, ["offset", "size", "image_hash"])
    with Path(local_path(path)).open("rb") as file:
        file.seek(int(rows["offset"][place.row]))
        data = file.read(int(rows["size"][place.row]))
    if image_hash(data) != int(rows["image_hash"][place.row]):
        raise IdentityError(f"{path}: not the bytes that were labelled; was the tar packed anew?")
    return data


def terminal_picture(data: bytes) -> str:
    """The image in coloured half blocks, two pixels a character."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        columns = min(_PICTURE_COLUMNS, max(image.width, 16))
        rows = max(2, round(columns * image.height / image.width) // 2 * 2)
        pixels = np.asarray(image.convert("RGB").resize((columns, rows)))
    lines = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{a[0]};{a[1]};{a[2]};48;2;{b[0]};{b[1]};{b[2]}m▀"
            for a, b in zip(upper, lower, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)
