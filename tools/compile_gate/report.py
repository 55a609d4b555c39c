"""What goes into the compiler for one configuration, and what is read off what comes out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Specialization(Protocol):
    """What Triton makes one binary of: the launcher and this gate are given the same record."""

    @property
    def kernel(self) -> Any:
        """The function that `triton.jit` made."""

    @property
    def signature(self) -> Mapping[str, str]:
        """Type by argument: "*bf16", "i32", "fp32", "constexpr"."""

    @property
    def constexprs(self) -> Mapping[str, object]:
        """Value by constexpr argument."""

    @property
    def divisible(self) -> tuple[str, ...]:
        """Arguments, pointers above all, that the launcher sees to be divisible by 16."""

    @property
    def options(self) -> Mapping[str, object]:
        """num_warps and what else the launch gives the compiler."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What the machine code of one configuration holds; bytes are bytes a thread but `shared`."""

    registers: int
    """Registers a thread."""
    stack: int
    local: int
    shared: int
    """Bytes of shared memory a block."""
    spill_stores: int
    spill_loads: int
    fp64: int
    """Mentions of .f64 in the PTX."""
    loads: dict[int, int]
    """Global loads in the PTX by width in bits, asynchronous copies included. ptxas may leave out
    some that never happen; it neither widens nor narrows one."""
    stores: dict[int, int]
    ex2: int
    """Exponentials in the PTX."""
    barriers: int
    seconds: float

    def wide(self, accesses: Mapping[int, int]) -> int:
        """How many of `loads` or `stores` move at least 128 bits."""
        return sum(count for bits, count in accesses.items() if bits >= 128)
