"""kd-store: what is in a store, whether it is whole, and one row of it."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro

from softlabel.shards import commandline

DESCRIPTION = """Look into a label store.

Examples:
  kd-store stats labels.zarr
  kd-store stats labels.zarr --source-by 'path:pool/([^/]+)/' --html labels.html
  kd-store verify labels.zarr
  kd-store show labels.zarr --key some/image --shards 'train-{0000..0099}.tar'

Exit codes: 0 fine, 2 usage, 4 other tars than were labelled, 6 store damaged."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Members, labels, classes and bytes, and the labels of each source, from the store alone."""

    store: tyro.conf.Positional[Path]
    """Folder of the store."""
    source_by: str = "name"
    """What makes a source: name (the tar's without its number), tar, path:REGEX, key:REGEX or
    json:FIELD. Of an expression its first group counts."""
    shards: tuple[str, ...] = ()
    """Where the tars are now, for sources by key or json and for pictures; else where they lay
    when they were labelled."""
    json: bool = False
    """One JSON object instead of lines; it has the tars one by one too."""
    html: Path | None = None
    """Also write a page with figures and pictures here."""


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check every invariant of every file (docs/format.md lists them)."""

    store: tyro.conf.Positional[Path]
    """Folder of the store."""
    json: bool = False
    """One JSON object instead of lines."""


@dataclass(frozen=True, kw_only=True)
class Show:
    """One row: picture, first classes, tail."""

    store: tyro.conf.Positional[Path]
    """Folder of the store."""
    key: str | None = None
    """The member's key: its path in the tar up to the first dot of the name."""
    row: str | None = None
    """T,R: tar ordinal and member ordinal."""
    shards: tuple[str, ...] = ()
    """Where the tars are now, for the picture."""
    picture: Path | None = None
    """Also write the image file here."""
    json: bool = False
    """One JSON object a row instead of lines."""


Command = (
    Annotated[Stats, tyro.conf.subcommand("stats")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Show, tyro.conf.subcommand("show")]
)


def run(command: Stats | Verify | Show) -> int:
    """Do it; the exit code."""
    if isinstance(command, Stats):
        return _stats(command)
    from softlabel.shards.store import open_store

    store = open_store(command.store)
    if isinstance(command, Verify):
        return _verify(store, command)
    return _show(store, command)


def _stats(command: Stats) -> int:
    from softlabel.shards.sources import parse_source_by

    by = parse_source_by(command.source_by)

    from softlabel.shards.store import open_store
    from softlabel.tools.stats.collect import collect
    from softlabel.tools.stats.page import refuse_unwritable, write_page
    from softlabel.tools.stats.pictures import tars_at_hand
    from softlabel.tools.store_stats import collection_lines, stats_lines, store_stats

    store = open_store(command.store)
    if command.html is not None:
        refuse_unwritable(command.html)
    urls = tars_at_hand(store, command.shards)
    collection = collect(store, by=by, urls=urls)
    stats = store_stats(store, collection)
    if command.html is not None:
        write_page(store, collection, urls=urls, path=command.html)
    if command.json:
        print(json.dumps(stats, allow_nan=False))
        return 0
    print(*stats_lines(stats), sep="\n")
    print(*collection_lines(store, collection), sep="\n")
    if command.html is not None:
        print(f"page       {command.html}")
    return 0


def _verify(store: Any, command: Verify) -> int:
    from softlabel.shards.errors import StoreError
    from softlabel.shards.invariants import problems

    found = list(problems(store))
    pending = len(store.pending())
    if command.json:
        print(json.dumps({"store": str(store.path), "problems": found, "pending_tars": pending}))
    else:
        for problem in found:
            print(f"problem {problem}")
        done = len(store.tars) - pending
        print(f"{done:,} committed tars checked, {pending:,} pending, {len(found)} problem(s)")
    return StoreError.exit_code if found else 0


def _show(store: Any, command: Show) -> int:
    from softlabel.tools.store_show import (
        describe,
        describe_lines,
        find_rows,
        image_bytes,
        terminal_picture,
    )

    for place in find_rows(store, key=command.key, row=command.row):
        row = describe(store, place)
        data = image_bytes(store, place, command.shards)
        if command.json:
            print(json.dumps(row))
            continue
        if data is not None and sys.stdout.isatty() and row["status"] == "ok":
            print(terminal_picture(data))
        print(*describe_lines(row), sep="\n")
        if data is None:
            print("  picture: the tar is not at hand; name it with --shards")
        elif command.picture is not None:
            command.picture.write_bytes(data)
            print(f"  picture: {command.picture}")
    return 0


def main() -> NoReturn:
    """The command."""
    commandline.main("kd-store", DESCRIPTION, Command, run)
