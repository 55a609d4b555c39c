"""The per-row terms of the Triton kernels: what the teacher says, and the loss of each tail rule.

Names as in `one_row`. All arithmetic is float32.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
# Finite stand-ins for -inf and 0; a literal outside float32's normal range would be a float64.
LOWEST = tl.constexpr(-3.0e38)
TINY = tl.constexpr(1.2e-38)


@triton.jit
def power(e, POWER: tl.constexpr):
    """e to a whole number from 1 to 8: exp(z) from exp(z / T), without a second exponential."""
    if POWER == 1:
        result = e
    elif POWER % 2 == 0:
        half = power(e, POWER // 2)
        result = half * half
    else:
        result = power(e, POWER - 1) * e
    return result


@triton.jit
def mixed(e, soft_slope, hard_slope, POWER: tl.constexpr, HARD: tl.constexpr):
    """soft_slope * e + hard_slope * e**POWER.

    Not by `power`: the compiler would keep that from the sums, a second row of registers.
    """
    slope = soft_slope
    if HARD:
        rest = hard_slope
        for _ in tl.static_range(POWER - 1):
            rest *= e
        slope = soft_slope + rest
    return slope * e


@triton.jit
def teacher(
    topk_logit_ptr,
    topk_class_ptr,
    tail_lse_ptr,
    inv_T,
    C: tl.constexpr,
    K: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A row's stored classes: which lanes hold one, how many, log p, log r, whether one is >= C."""
    k = tl.arange(0, BLOCK_K)
    classes = tl.load(topk_class_ptr + k, mask=k < K, other=0).to(tl.int64)
    valid = (k < K) & (classes >= 0) & (classes < C)
    n = tl.sum(valid.to(tl.int32), axis=0)
    wrong = tl.max(((k < K) & (classes >= C)).to(tl.int32), axis=0) > 0
    v = tl.load(topk_logit_ptr + k, mask=valid, other=-float("inf")).to(tl.float32) * inv_T
    log_r = -float("inf")
    if TAIL != "renorm" and TAIL != "subset":
        log_r = tl.load(tail_lse_ptr)
    # A row without any class has no soft loss; its terms must only not get in the way.
    peak = tl.where(n > 0, tl.maximum(tl.max(v, axis=0), log_r), 0.0)
    log_total = tl.log(tl.sum(tl.exp(v - peak), axis=0) + tl.exp(log_r - peak))
    log_p = tl.where(valid, v - peak - log_total, -float("inf"))
    log_r = tl.where(n > 0, log_r - peak - log_total, -float("inf"))
    return classes, valid, n, log_p, log_r, wrong


@triton.jit
def hard_label(target_ptr, ignore_index, C: tl.constexpr):
    """A row's class (0 if it has none), whether it has one, whether that does not exist."""
    y = tl.load(target_ptr).to(tl.int64)
    labelled = y != ignore_index
    wrong = labelled & ((y < 0) | (y >= C))
    labelled = labelled & (y >= 0) & (y < C)
    return tl.where(labelled, y, 0), labelled, wrong


@triton.jit
def soft_loss(
    stored,
    valid,
    n,
    log_p,
    log_r,
    anchor,
    peak,
    total,
    offset,
    inv_T,
    C: tl.constexpr,
    TAIL: tl.constexpr,
):
    """The loss (for bucket without the tail's part), p and q as their difference is the gradient
    on the stored classes, slope and constant of the gradient off them, r, and tail_total.

    offset is the sum of z - anchor over the row, anchor the largest stored z.
    """
    rate = inv_T * LOG2_E
    p, r = tl.exp(log_p), tl.exp(log_r)
    log_q = (stored - peak) * inv_T - tl.log(total)
    if TAIL == "subset":
        e_subset = tl.where(valid, tl.exp2((stored - anchor) * rate), 0.0)
        log_q = (stored - anchor) * inv_T - tl.log(tl.sum(e_subset, axis=0))
    q = tl.exp(log_q)
    loss = tl.sum(tl.where(p == 0, 0.0, p * (log_p - log_q)), axis=0)
    slope, constant, tail_total = 1.0 / total, 0.0, 0.0
    if TAIL == "bucket":
        e_stored = tl.where(valid, tl.exp2((stored - peak) * rate), 0.0)
        tail_total = tl.maximum(total - tl.sum(e_stored, axis=0), TINY)
        slope -= r / tail_total
    elif TAIL == "uniform":
        others = (C - n).to(tl.float32)
        constant = tl.where(n > 0, r / others, 0.0)
        tail_offset = offset - tl.sum(tl.where(valid, stored - anchor, 0.0), axis=0)
        log_q_at_anchor = (anchor - peak) * inv_T - tl.log(total)
        tail_loss = r * (log_r - tl.log(others) - log_q_at_anchor) - constant * tail_offset * inv_T
        loss += tl.where(r == 0, 0.0, tail_loss)
    elif TAIL == "truncate":
        mass = tl.sum(p, axis=0)
        q *= mass
        slope = mass * slope
    elif TAIL == "subset":
        slope = 0.0
    return loss, p, q, slope, constant, r, tail_total
