"""What compiled code must not hold, and what it must."""

import math
from collections.abc import Iterator

from softlabel.tools.compile_gate.report import Report, Specialization

_WIDE_FROM = 256
"""Classes from which rows are moved 128 bits at a time; below, latency rules anyway."""

_ROWS = (("load", "logits_ptr", "LOGITS_STRIDE"), ("store", "dlogits_ptr", "DLOGITS_STRIDE"))


def complaints(spec: Specialization, report: Report) -> Iterator[str]:
    """All that is wrong with one compiled configuration, whatever it was before."""
    if report.spill_stores or report.spill_loads:
        yield f"spills: {report.spill_stores} bytes stored, {report.spill_loads} loaded"
    if report.stack:
        yield f"{report.stack} bytes of stack"
    if report.local:
        yield f"{report.local} bytes of local memory"
    if report.fp64:
        yield f"fp64 in the PTX, {report.fp64} times (a literal below 1.18e-38 is a double)"
    for what, pointer, stride in _ROWS:
        accesses = report.loads if what == "load" else report.stores
        if not _wide(spec, pointer, stride) or (what == "load" and not _reads_rows(spec)):
            continue
        wide = report.wide(accesses)
        narrow = sum(accesses.values()) - wide
        if not wide:
            yield f"no 128-bit {what} although rows lie on multiples of 16 bytes"
        elif narrow > _narrow_allowed(spec):
            yield f"{narrow} narrow {what}s beside {wide} of 128 bits"


def _wide(spec: Specialization, pointer: str, stride: str) -> bool:
    """Whether every row starts on a multiple of 16 bytes and is long enough to care."""
    pitch, classes = spec.constexprs.get(stride), spec.constexprs.get("C")
    if not (isinstance(pitch, int) and isinstance(classes, int)):
        return False
    item = {"*fp32": 4, "*bf16": 2, "*fp16": 2}[spec.signature[pointer]]
    return pointer in spec.divisible and pitch * item % 16 == 0 and classes >= _WIDE_FROM


def _reads_rows(spec: Specialization) -> bool:
    """The subset rule alone gathers its stored classes and reads nothing else."""
    return spec.constexprs.get("TAIL") != "subset" or bool(spec.constexprs.get("HARD"))


def _narrow_allowed(spec: Specialization) -> int:
    """Scalars of the row, and what is gathered for the stored classes, in a branch or two."""
    lanes, warps = spec.constexprs.get("BLOCK_K", 1), spec.options.get("num_warps", 4)
    assert isinstance(lanes, int)
    assert isinstance(warps, int)
    return 8 + 4 * math.ceil(lanes / (32 * warps))
