"""What became of a member: one number a row, fixed for ever."""

from enum import IntEnum


class Status(IntEnum):
    """`status` in the store; 0 is the fill value, so a row never written reads as unlabelled."""

    UNLABELLED = 0
    OK = 1
    NO_IMAGE = 2
    UNDECODABLE = 3
    TOO_LARGE = 4
    NON_FINITE = 5
    QUARANTINED = 6
