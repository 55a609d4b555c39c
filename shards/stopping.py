"""Ctrl-C and SIGTERM as a request: the first leaves time to finish, the second does not."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether someone asked the run to end, and whether the grace for that is over."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._deadline: float | None = None
        self.signal = 0

    @property
    def requested(self) -> bool:
        """Take up no new unit of work."""
        return self._deadline is not None

    @property
    def expired(self) -> bool:
        """Drop the unit at work too."""
        return self._deadline is not None and time.monotonic() > self._deadline

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.signal = number
        self._deadline = time.monotonic() + self._grace_s


@contextmanager
def stop_on_signals(grace_s: float) -> Iterator[StopRequest]:
    """Handle SIGINT and SIGTERM inside the block, where Python allows: in the main thread."""
    request = StopRequest(grace_s)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, request._on_signal) for number in numbers]
    try:
        yield request
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
