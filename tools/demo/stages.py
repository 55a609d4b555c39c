"""Which stages of the demo are done, and how long each took, across interrupted runs."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from softlabel.shards import durable


class StageTimes:
    """Seconds of each finished stage, kept in a file; a stage that was interrupted adds up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stages: dict[str, dict[str, Any]] = {}
        if path.is_file():
            self._stages = json.loads(path.read_text())

    @contextmanager
    def stage(self, name: str) -> Iterator[bool]:
        """Time the block; yields whether the stage was done by an earlier run."""
        known = self._stages.setdefault(name, {"seconds": 0.0, "done": False})
        done = bool(known["done"])
        print(f"\n== {name}" + (" (done before)" if done else ""), flush=True)
        start = time.monotonic()
        try:
            yield done
            known["done"] = True
        finally:
            if not done:
                known["seconds"] = round(known["seconds"] + time.monotonic() - start, 1)
            content = json.dumps(self._stages, indent=1).encode()
            durable.replace_all({self._path: content})

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, in order."""
        return {name: float(stage["seconds"]) for name, stage in self._stages.items()}
