"""How a Triton program goes over one row: loads, sums, stores. Names as in `one_row`."""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from softlabel.kernels.sparse_kl.gpu.row_terms import LOG2_E, LOWEST, TINY, mixed, power


@triton.jit
def load(row_ptr, c, C: tl.constexpr, W: tl.constexpr):
    """The padding is loaded too: a mask that ends at an odd C would make every access narrow."""
    z = tl.load(row_ptr + c, mask=c < W, other=0.0).to(tl.float32)
    return tl.where(c < C, z, -float("inf"))


@triton.jit
def load_ahead(logits_ptr, row, B, STRIDE: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr):
    """A row as it lies in memory, on its way while another is worked on; past the last, the last.

    That is read in vain then, from the cache: a mask of rows would be one more of the registers."""
    c = tl.arange(0, BLOCK)
    row_ptr = logits_ptr + tl.minimum(row, B - 1).to(tl.int64) * STRIDE
    return tl.load(row_ptr + c, mask=c < W, other=0.0)


@triton.jit
def store(dlogits_ptr, c, gradient, C: tl.constexpr, W: tl.constexpr):
    gradient = tl.where(c < C, gradient, 0.0)
    tl.store(dlogits_ptr + c, gradient.to(dlogits_ptr.dtype.element_ty), mask=c < W)


@triton.jit
def exponentials(z, peak, rate, POWER: tl.constexpr, HARD: tl.constexpr):
    """e and, where there are hard labels, e1: a power of e if T is a small whole number."""
    e = tl.exp2((z - peak) * rate)
    e1 = e
    if HARD:
        e1 = power(e, POWER) if POWER > 0 else tl.exp2((z - peak) * LOG2_E)
    return e, e1


@triton.jit
def sweep_sums(
    row_ptr,
    anchor,
    rate,
    C: tl.constexpr,
    W: tl.constexpr,
    POWER: tl.constexpr,
    HARD: tl.constexpr,
    OFFSETS: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """peak, total, total1 and, if asked for, the sum of z - anchor; each maximum is of a block."""
    peak = tl.full([], LOWEST, tl.float32)
    totals = tl.zeros([BLOCK], tl.float32)
    totals1 = tl.zeros([BLOCK], tl.float32)
    offsets = tl.zeros([BLOCK], tl.float32)
    for start in tl.range(0, W, BLOCK, num_stages=NUM_STAGES):
        c = start + tl.arange(0, BLOCK)
        z = load(row_ptr, c, C, W)
        if OFFSETS:
            offsets += tl.where(c < C, z - anchor, 0.0)
        higher = tl.maximum(peak, tl.max(z, axis=0))
        e, e1 = exponentials(z, higher, rate, POWER, HARD)
        totals = totals * tl.exp2((peak - higher) * rate) + e
        if HARD:
            totals1 = totals1 * tl.exp2((peak - higher) * LOG2_E) + e1
        peak = higher
    return peak, tl.sum(totals, axis=0), tl.sum(totals1, axis=0), tl.sum(offsets, axis=0)


@triton.jit
def sweep_store(
    row_ptr,
    dlogits_ptr,
    peak,
    rate,
    soft_slope,
    hard_peak,
    hard_slope,
    constant,
    C: tl.constexpr,
    W: tl.constexpr,
    POWER: tl.constexpr,
    HARD: tl.constexpr,
    BLOCK: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """Read the row once more, from its end, and store the gradient; the rows may be the same.

    POWER is 0 also where the two peaks differ."""
    BLOCKS: tl.constexpr = (W + BLOCK - 1) // BLOCK
    for i in tl.range(0, BLOCKS, num_stages=NUM_STAGES):
        c = (BLOCKS - 1 - i) * BLOCK + tl.arange(0, BLOCK)
        z = load(row_ptr, c, C, W)
        e = tl.exp2((z - peak) * rate)
        if HARD and POWER == 0:
            e1 = tl.exp2((z - hard_peak) * LOG2_E)
            gradient = soft_slope * e + hard_slope * e1 - constant
        else:
            gradient = mixed(e, soft_slope, hard_slope, POWER, HARD) - constant
        store(dlogits_ptr, c, gradient, C, W)


@triton.jit
def store_zeros(dlogits_ptr, C: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr):
    for start in range(0, W, BLOCK):
        store(dlogits_ptr, start + tl.arange(0, BLOCK), tl.zeros([BLOCK], tl.float32), C, W)


@triton.jit
def copy_tail(
    row_ptr,
    copy_ptr,
    classes,
    valid,
    rate,
    C: tl.constexpr,
    W: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Copy a row without its stored classes; the largest z left, and the sum of e relative to it.

    What is summed is the tail alone, so that it can neither cancel nor vanish."""
    for start in range(0, W, BLOCK):
        c = start + tl.arange(0, BLOCK)
        tl.store(copy_ptr + c, tl.load(row_ptr + c, mask=c < W), mask=c < W)
    tl.debug_barrier()
    gone = tl.full(classes.shape, -float("inf"), tl.float32)
    tl.store(copy_ptr + classes, gone.to(copy_ptr.dtype.element_ty), mask=valid)
    tl.debug_barrier()
    peak, total, _, _ = sweep_sums(copy_ptr, 0.0, rate, C, W, 1, False, False, BLOCK, 1)
    return peak, tl.maximum(total, TINY)
