"""Triton: rows times their factors, in place; a factor of 1 is seen on the device and skipped."""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl


@triton.jit
def scale_kernel(
    dlogits_ptr,  # [B, W], in and out
    factor_ptr,  # [B] or [1] float32
    DLOGITS_STRIDE: tl.constexpr,
    PER_ROW: tl.constexpr,
    W: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    if PER_ROW:
        factor_ptr += row
    factor = tl.load(factor_ptr)
    if factor != 1.0:
        dlogits_ptr += row * DLOGITS_STRIDE
        for start in range(0, W, BLOCK):
            c = start + tl.arange(0, BLOCK)
            scaled = factor * tl.load(dlogits_ptr + c, mask=c < W).to(tl.float32)
            tl.store(dlogits_ptr + c, scaled.to(dlogits_ptr.dtype.element_ty), mask=c < W)
