"""The errors a user can mend. Each prints as one line and decides the exit code.

    SoftLabelError
    ├── UsageError         2  a flag, a path or a recipe that cannot be right
    │   └── TeacherError   2  the ONNX file cannot serve as a teacher
    ├── UnfinishedError    3  the run ended, but tars failed or too many images are bad
    │   └── TarError       3  a tar is damaged, compressed or larger than the store's rows
    ├── IdentityError      4  things that do not belong together: store, teacher, tars, checkpoint
    ├── MachineError       5  this machine lacks what was asked for: provider, disk, permission
    └── StoreError         6  the label store is damaged

`ImageError` is apart: it never ends a run, it becomes the status of one row.
ValueError and TypeError are a caller's bug and keep their traceback (exit 1).
A message says, on one line, what was wanted, what was found, and what to do.
"""

from softlabel.shards.status import Status


class SoftLabelError(Exception):
    """Something the user can mend; `exit_code` is what the command returns."""

    exit_code = 2


class UsageError(SoftLabelError):
    """A flag, a path, a shard list or a recipe that cannot be right."""


class TeacherError(UsageError):
    """The ONNX file cannot serve as a teacher."""


class UnfinishedError(SoftLabelError):
    """The run ended, but tars failed or too many images are bad."""

    exit_code = 3


class TarError(UnfinishedError):
    """A tar is damaged, compressed, or holds more members than the store has rows."""


class IdentityError(SoftLabelError):
    """Things that do not belong together: a store, a teacher, tars, a checkpoint."""

    exit_code = 4


class MachineError(SoftLabelError):
    """This machine lacks what was asked for: a provider, disk space, a permission."""

    exit_code = 5


class StoreError(SoftLabelError):
    """The label store is damaged."""

    exit_code = 6


class ImageError(Exception):
    """One image cannot be used; `status` is what its row will say."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
