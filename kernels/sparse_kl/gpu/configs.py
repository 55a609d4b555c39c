"""Which kernel a problem gets and how it is compiled: a table, never a race at run time.

Tuning while running (`triton.autotune`) would need the GPU idle, destroy logits that are
overwritten in place, and let the last bit of a loss depend on who won.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import triton

ROWS_WIDTH = 256
"""Rows up to this wide are worked on several at a time."""

RESIDENT_WIDTH = 32768
"""The widest row that is kept in registers between its sums and its gradient."""

PREFETCH_WIDTH = 24576
"""The widest row of 16-bit logits that leaves registers for the next row beside it."""

MAX_TOP_K = 1024
"""The most stored classes a row that fit the registers beside the row itself."""


class Problem(NamedTuple):
    """All of a call that is compiled into a kernel."""

    num_classes: int
    width: int
    logits_stride: int
    dlogits_stride: int
    top_k: int
    tail: str
    soft: bool
    hard: bool
    smooth: bool
    weighted: bool
    scaled: bool
    power: int
    """The temperature if it is a whole number up to 8, else 0."""
    dtype: Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Config:
    """One way to run a problem."""

    form: Literal["rows", "resident", "stream"]
    block: int
    """Columns in registers at a time; a power of two."""
    num_warps: int
    rows: int = 1
    """Rows a program, for form "rows"."""
    num_stages: int = 1
    """Blocks in flight, for form "stream"."""
    num_ctas: int = 1
    """Thread blocks that share a row (Hopper and later, triton >= 3.8)."""
    prefetch: bool = False
    """Few programs with many rows each, for form "resident": the next row is loaded early."""
    max_registers: int | None = None
    """A limit a thread. Left alone, ptxas now and then spills a few to fit one more block."""


# Widest row -> (form, block, warps), narrowest first. From compiled code without spills on sm_80,
# sm_90 and sm_100 (registers.csv); times on a GPU are still to be measured (tools/gpu_suite.sh).
_TABLE: tuple[tuple[int, Config], ...] = (
    (16, Config("rows", 16, 4, rows=32)),
    (32, Config("rows", 32, 4, rows=32)),
    (64, Config("rows", 64, 4, rows=16)),
    (128, Config("rows", 128, 8, rows=16)),
    (256, Config("rows", 256, 4, rows=8, max_registers=168)),
    (512, Config("resident", 512, 1)),
    (1024, Config("resident", 1024, 1)),
    (2048, Config("resident", 2048, 2)),
    (4096, Config("resident", 4096, 4)),
    (8192, Config("resident", 8192, 8, max_registers=128)),
    (16384, Config("resident", 16384, 8)),
    (PREFETCH_WIDTH, Config("resident", 32768, 16, prefetch=True)),
    (RESIDENT_WIDTH, Config("resident", 32768, 16)),
)
_STREAM = Config("stream", 8192, 16, num_stages=3, max_registers=128)
# Two sums a column instead of one: fewer columns, two programs side by side.
_STREAM_HARD = Config("stream", 2048, 8, num_stages=3, max_registers=128)


def config_for(problem: Problem, arch: int) -> Config:
    """The table's entry for a problem on an architecture, such as 90 for Hopper."""
    stream = _STREAM_HARD if problem.hard else _STREAM
    if arch < 80:
        stream = replace(stream, num_stages=1)  # nothing is copied asynchronously there
    if problem.hard and problem.power == 0 and problem.width > 8192:
        # Two exponentials of every column would have to be kept.
        return stream
    config = next((found for width, found in _TABLE if problem.width <= width), stream)
    if config is stream:
        return stream
    block_k = triton.next_power_of_2(max(1, problem.top_k))
    aligned = problem.logits_stride % 8 == 0 and problem.dlogits_stride % 8 == 0
    if problem.dtype == "fp32" or problem.smooth or not aligned:
        # Float32 rows, the sum that smoothing needs, and the addresses of narrow accesses leave no
        # registers for a row ahead.
        config = replace(config, prefetch=False)
    if config.form == "rows":
        # The tile of stored classes must not outgrow that of columns.
        rows = max(1, min(config.rows, 2048 // block_k))
        if block_k >= 128:
            return replace(config, rows=rows, num_warps=8, max_registers=None)
        return replace(config, rows=rows)
    num_warps = min(16, block_k // 32)
    if num_warps <= config.num_warps:
        return config
    return replace(config, num_warps=num_warps, max_registers=config.max_registers or 128)


def candidates(problem: Problem) -> Iterator[Config]:
    """What a sweep on a GPU times to fill the table, at most 12 a problem."""
    width = triton.next_power_of_2(problem.width)
    if width <= ROWS_WIDTH:
        for rows, num_warps in itertools.product((4, 8, 16, 32), (2, 4, 8)):
            yield Config("rows", width, num_warps, rows=rows)
        return
    if width <= RESIDENT_WIDTH:
        for columns in (4096, 2048, 1024, 512, 256):
            if 1 <= width // columns <= 32:
                yield Config("resident", width, width // columns)
        for num_warps in (width // 4096, width // 2048):
            if num_warps >= 4 and problem.dtype != "fp32":
                yield Config("resident", width, num_warps, prefetch=True)
    if width > 8192:
        for block, num_warps in ((8192, 16), (4096, 16), (4096, 8), (2048, 8)):
            yield Config("stream", block, num_warps, num_stages=3, max_registers=128)
        yield Config("stream", 8192, 16)
        yield Config("stream", 16384, 32)
    if RESIDENT_WIDTH < width <= 8 * RESIDENT_WIDTH and _shares_rows():
        # GPUs before Hopper refuse it.
        yield Config("resident", width, 16, num_ctas=max(2, width // RESIDENT_WIDTH))


def _shares_rows() -> bool:
    """Whether triton can spread a row over several thread blocks; before 3.8 it aborts."""
    major, minor = (int(part) for part in triton.__version__.split(".")[:2])
    return (major, minor) >= (3, 8)


def reads_rows(problem: Problem) -> bool:
    """Whether more of a row than its stored classes is read."""
    return problem.hard or problem.tail != "subset"


def constexprs(problem: Problem, config: Config) -> dict[str, object]:
    """The compiled-in arguments of the kernel that `config.form` names."""
    found: dict[str, object] = {
        "LOGITS_STRIDE": problem.logits_stride,
        "DLOGITS_STRIDE": problem.dlogits_stride,
        "C": problem.num_classes,
        "W": problem.width,
        "K": problem.top_k,
        "TAIL": problem.tail,
        "SOFT": problem.soft,
        "HARD": problem.hard,
        "SMOOTH": problem.smooth,
        "WEIGHTED": problem.weighted,
        "SCALED": problem.scaled,
        "POWER": problem.power,
        "BLOCK_K": triton.next_power_of_2(max(1, problem.top_k)),
    }
    if config.form == "rows":
        return found | {"ROWS": config.rows, "BLOCK_C": config.block}
    resident = config.form == "resident"
    return found | {
        "RESIDENT": resident,
        "PREFETCH": config.prefetch and reads_rows(problem),
        "BLOCK_C": config.block,
        # The sweeps of a resident row are rare ones: small blocks keep them off its registers.
        "SWEEP": min(config.block, 256 * config.num_warps) if resident else config.block,
        "NUM_STAGES": config.num_stages,
    }


def options(config: Config) -> dict[str, int | bool]:
    """How triton compiles a kernel."""
    found: dict[str, int | bool] = {
        "num_warps": config.num_warps,
        "num_stages": 1,
        "num_ctas": config.num_ctas,
        # What the error bounds were checked with; triton is about to change its default.
        "enable_fp_fusion": True,
    }
    return found if config.max_registers is None else found | {"maxnreg": config.max_registers}
