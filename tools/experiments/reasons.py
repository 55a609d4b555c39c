"""What was found out about claims that did not reproduce, written by hand after looking."""

from collections.abc import Mapping

REASONS: Mapping[str, str] = {}
"""By `DATA/CLAIM`; printed beside the verdict."""
