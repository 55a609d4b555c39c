"""Kernels for the compile gate's tests: two that are right, and one for each thing it refuses."""

import os
from collections.abc import Iterator
from typing import NamedTuple

import triton
import triton.language as tl


@triton.jit
def scale(
    logits_ptr,
    dlogits_ptr,
    factor,
    LOGITS_STRIDE: tl.constexpr,
    DLOGITS_STRIDE: tl.constexpr,
    C: tl.constexpr,
    FLOOR: tl.constexpr,
    END: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A row over its largest, at least FLOOR; a factor of 0 stores zeros at once."""
    row = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, BLOCK)
    if factor == 0.0:
        zeros = tl.zeros([BLOCK], tl.float32).to(dlogits_ptr.dtype.element_ty)
        tl.store(dlogits_ptr + row * DLOGITS_STRIDE + c, zeros, mask=c < DLOGITS_STRIDE)
    else:
        z = tl.load(logits_ptr + row * LOGITS_STRIDE + c, mask=c < END, other=0.0).to(tl.float32)
        largest = FLOOR  # what a loop carries has the type of its literal
        for _ in range(2):
            largest = tl.maximum(largest, tl.max(z * factor, axis=0))
        z = (z * factor / largest).to(dlogits_ptr.dtype.element_ty)
        tl.store(dlogits_ptr + row * DLOGITS_STRIDE + c, z, mask=c < END)


@triton.jit
def hold(
    logits_ptr,
    dlogits_ptr,
    factor,
    LOGITS_STRIDE: tl.constexpr,
    DLOGITS_STRIDE: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A softmax that keeps all of a row in registers."""
    c = tl.arange(0, BLOCK)
    z = tl.load(logits_ptr + c).to(tl.float32)
    e = tl.exp2((z - tl.max(z, axis=0)) * factor)
    tl.store(dlogits_ptr + c, (e / tl.sum(e, axis=0)).to(dlogits_ptr.dtype.element_ty))


@triton.jit
def refuse(
    logits_ptr,
    dlogits_ptr,
    factor,
    LOGITS_STRIDE: tl.constexpr,
    DLOGITS_STRIDE: tl.constexpr,
    C: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Does not compile."""
    tl.static_assert(C < 0, "no such class")


class Specialization(NamedTuple):
    """As the real one."""

    kernel: object
    signature: dict[str, str]
    constexprs: dict[str, object]
    divisible: tuple[str, ...]
    options: dict[str, object]


class Deadly(Specialization):
    """Ends the process that compiles it, as a failed assertion of the compiler does."""

    @property
    def options(self) -> dict[str, object]:
        os.write(2, b"planted.cpp:1: Assertion `layout' failed.\n")
        os.abort()


def _spec(
    kernel: object, dtype: str, *, block: int, num_warps: int, **constexprs: object
) -> Specialization:
    pointers = {"logits_ptr": f"*{dtype}", "dlogits_ptr": f"*{dtype}"}
    rows = {"LOGITS_STRIDE": block, "DLOGITS_STRIDE": block, "C": block - 1, "BLOCK": block}
    return Specialization(
        kernel,
        {**pointers, "factor": "fp32"},
        {**rows, **constexprs},
        tuple(pointers),
        {"num_warps": num_warps, "enable_fp_fusion": True},
    )


def right(arch: int, dtype: str) -> Iterator[tuple[str, Specialization]]:
    """Nothing to complain of."""
    end = {"END": 1024}
    yield "right", _spec(scale, dtype, block=1024, num_warps=2, FLOOR=1.2e-38, **end)
    yield "held", _spec(hold, dtype, block=1024, num_warps=2)


def wrong(arch: int, dtype: str) -> Iterator[tuple[str, Specialization]]:
    """One fault each, a right one among them."""
    odd = {"num_warps": 2, "FLOOR": 0.0, "END": 1023}
    yield "double", _spec(scale, dtype, block=1024, num_warps=2, FLOOR=1e-38, END=1024)
    yield "spills", _spec(hold, dtype, block=16384, num_warps=2)
    yield "dies", Deadly(*_spec(hold, dtype, block=1024, num_warps=2))
    yield "right", _spec(hold, dtype, block=1024, num_warps=2)
    # A mask that ends at an odd class; the other branch, all wide, must not hide it.
    yield "narrow", _spec(scale, dtype, block=1024, **odd)
    yield "refused", _spec(refuse, dtype, block=1024, num_warps=2)
