"""The folder for what can be made or fetched again: labelling graphs, downloads."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$SOFTLABEL_CACHE, else softlabel/ in the user's cache folder; it may not exist yet."""
    if own := os.environ.get("SOFTLABEL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "softlabel"
