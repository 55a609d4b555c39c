"""How far a long run is: a bar on a terminal, a line now and then elsewhere, JSON for machines."""

import json
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal

_EVERY_S = 30.0
_REFRESH_S = 0.2


class Progress:
    """Shows a share done, a rate and an ETA on standard error; use as a context manager.

    `total` counts whatever unit the share is made of (bytes, steps); the rate counts images.
    """

    def __init__(
        self, what: str, *, total: float, done: float, log_format: Literal["auto", "text", "json"]
    ) -> None:
        self._what = what
        self._total = max(total, 1e-9)
        self._begun_at = done
        self._start = self._last = time.monotonic()
        self._json = log_format == "json"
        self._bar: Any = None
        self._task: Any = None
        if log_format == "auto" and sys.stderr.isatty():
            self._bar, self._task = _rich_bar(what)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: float, *, images: int, details: Mapping[str, Any]) -> None:
        """`done` of `total` so far; `images` handled by this run; details are shown as they are."""
        now = time.monotonic()
        if now - self._last < (_REFRESH_S if self._bar is not None else _EVERY_S):
            return
        self._last = now
        self._show(done, images, details, now - self._start)

    def _show(self, done: float, images: int, details: Mapping[str, Any], seconds: float) -> None:
        share = min(done / self._total, 1.0)
        pace = (done - self._begun_at) / max(seconds, 1e-9)
        eta_s = (self._total - done) / pace if pace > 0 else float("inf")
        rate = images / max(seconds, 1e-9)
        if self._json:
            finite_eta = round(eta_s) if eta_s < 1e9 else None
            values = {"done": round(share, 4), "images_per_s": round(rate, 1), "eta_s": finite_eta}
            self.say(self._what, **values, **details)
            return
        said = "  ".join(f"{name} {value}" for name, value in details.items())
        if self._bar is not None:
            self._bar.update(
                self._task, completed=share * 100, rate=f"{rate:,.0f} images/s", details=said
            )
            return
        left = f"{eta_s:,.0f} s left" if eta_s < 1e9 else "time left unknown"
        self.say(f"{self._what}: {share:.1%}  {rate:,.0f} images/s  {left}  {said}")

    def say(self, message: str, **values: Any) -> None:
        """One line, above the bar if there is one; as JSON with its values if so asked."""
        if self._json:
            print(json.dumps({"event": message, **values}), file=sys.stderr, flush=True)
        elif self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        else:
            print(message, file=sys.stderr, flush=True)


def _rich_bar(what: str) -> tuple[Any, Any]:
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[rate]}"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[details]}"),
        console=Console(stderr=True),
        transient=True,
    )
    return bar, bar.add_task(what, total=100, rate="", details="")
