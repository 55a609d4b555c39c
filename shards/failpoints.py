"""Named steps at which a test can kill the process: SOFTLABEL_KILL_AT=step[:n], the n-th time.

The steps of one commit, in order. Without the variable, `reached` costs one dictionary look-up.
"""

import os
import signal

STEPS = (
    "commit-begins",
    "data-synced",
    "array-written",
    "data-written",
    "temporary-synced",
    "linked",
    "committed",
)

_counts: dict[str, int] = {}


def reached(step: str) -> None:
    """Die here, as by kill -9, if the environment names this step."""
    wanted = os.environ.get("SOFTLABEL_KILL_AT")
    if not wanted:
        return
    name, _, nth = wanted.partition(":")
    if name != step:
        return
    _counts[step] = _counts.get(step, 0) + 1
    if _counts[step] == int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)
