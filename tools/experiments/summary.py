"""What is kept of a campaign for the pages: one JSON file a data set, experiment by experiment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from softlabel.shards import durable
from softlabel.shards.errors import StoreError

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Part:
    """One experiment on one data set, whenever it was done."""

    findings: Mapping[str, Any]
    """`Findings.to_dict()`"""
    date: str
    seeds: int
    scale: float
    """Of the steps; anything but 1 was a trial."""
    students: int
    seconds: float
    """Sum over its students, each on one core."""
    machine: Mapping[str, Any]
    skipped: list[str] = field(default_factory=list)
    """Titles of students that could not be had, with reasons."""
    failed: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Summary:
    """All experiments of a data set that were ever done."""

    data: str
    title: str
    parts: dict[str, Part] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "format": FORMAT,
            "data": self.data,
            "title": self.title,
            "parts": {name: vars(part) for name, part in self.parts.items()},
        }


def read_summary(folder: Path, data: str) -> Summary | None:
    """What earlier campaigns found of a data set; StoreError if the file is another's."""
    path = _path(folder, data)
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    if content.get("format") != FORMAT or content.get("data") != data:
        raise StoreError(f"{path}: wanted results of {data}, format {FORMAT}; delete it")
    parts = {name: Part(**part) for name, part in content["parts"].items()}
    return Summary(data=data, title=content["title"], parts=parts)


def write_summary(folder: Path, summary: Summary) -> Path:
    """Write a data set's file, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, summary.data)
    durable.replace_all({path: (json.dumps(summary.to_dict(), indent=1) + "\n").encode()})
    return path


def _path(folder: Path, data: str) -> Path:
    return folder / f"experiments-{data}.json"
