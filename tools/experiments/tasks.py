"""What a task is: a piece of work that is done once, and known by its settings."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from softlabel.shards import durable
from softlabel.shards.sealed import checksum

_DONE = "result.json"
_KEY_LETTERS = 16

Result = Mapping[str, Any]


class Task(Protocol):
    """Hashable, picklable, and equal to every task of the same settings."""

    @property
    def data(self) -> str:
        """The data set's name."""

    @property
    def title(self) -> str:
        """For the progress line; not part of the settings."""

    @property
    def cost(self) -> float:
        """How long it takes, in any unit that is the same for all tasks."""

    def settings(self) -> Mapping[str, Any]:
        """All that decides the result, as JSON: code and machine are not in it."""

    def needs(self) -> "Sequence[Task]":
        """Tasks that must be done before."""

    def execute(self, folder: Path) -> Result:
        """Do it, below `folder`, which is the same for all tasks; the result goes to JSON."""


def key_of(task: Task) -> str:
    """A name of its settings, for ever the same."""
    named = {"kind": type(task).__name__, **task.settings()}
    return checksum(named)[:_KEY_LETTERS]


def folder_of(task: Task, folder: Path) -> Path:
    """Where a task leaves its things."""
    return folder / task.data / type(task).__name__.lower() / key_of(task)


def finished(task: Task, folder: Path) -> Result | None:
    """The result of an earlier run, or None."""
    try:
        text = (folder_of(task, folder) / _DONE).read_text()
    except FileNotFoundError:
        return None
    content: Mapping[str, Any] = json.loads(text)
    result: Result = content["result"]
    return result


def keep(task: Task, folder: Path, result: Result) -> None:
    """Write the result, which makes the task a finished one."""
    path = folder_of(task, folder)
    path.mkdir(parents=True, exist_ok=True)
    content = {"title": task.title, "settings": task.settings(), "result": result}
    durable.replace_all({path / _DONE: (json.dumps(content, indent=1) + "\n").encode()})
