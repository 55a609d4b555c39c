"""Triton sparse_kl: one row per program, float32 inside; started by `launch`, checked by `op`.

B rows of W columns, the first C of them classes; K classes stored per row (K <= BLOCK_K).
A row that fits BLOCK_C is read once and written once; a wider one is read twice.
z are logits, q the student's probabilities, p and r the teacher's for the stored classes and for
all others together, T the temperature, rate = log2(e) / T.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

_LOG2_E = tl.constexpr(1.4426950408889634)
# Finite stand-ins for -inf and 0; a literal outside float32's normal range would be a float64.
_LOWEST = tl.constexpr(-3.0e38)
_TINY = tl.constexpr(1.2e-38)


@triton.jit
def _log_teacher(topk_logit_ptr, tail_lse_ptr, k, inv_T, K: tl.constexpr, TAIL: tl.constexpr):
    """Log p, -inf in the padded lanes, and log r."""
    v = tl.load(topk_logit_ptr + k, mask=k < K, other=-float("inf")).to(tl.float32) * inv_T
    log_r = -float("inf")
    if TAIL != "renorm":
        log_r = tl.load(tail_lse_ptr)
    peak = tl.maximum(tl.max(v, axis=0), log_r)
    log_total = tl.log(tl.sum(tl.exp(v - peak), axis=0) + tl.exp(log_r - peak))
    return v - peak - log_total, log_r - peak - log_total


@triton.jit
def _load(row_ptr, c, C: tl.constexpr, W: tl.constexpr):
    """The padding is loaded too: a mask that ends at an odd C would make every access narrow."""
    z = tl.load(row_ptr + c, mask=c < W, other=0.0).to(tl.float32)
    return tl.where(c < C, z, -float("inf"))


@triton.jit
def _sums(
    row_ptr,
    anchor,
    rate,
    C: tl.constexpr,
    W: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The largest z, the sum of exp((z - largest) / T) and, for uniform, of z - anchor."""
    peak = tl.full([], _LOWEST, tl.float32)
    totals = tl.zeros([BLOCK], tl.float32)
    offsets = tl.zeros([BLOCK], tl.float32)
    for start in range(0, W, BLOCK):
        c = start + tl.arange(0, BLOCK)
        z = _load(row_ptr, c, C, W)
        if TAIL == "uniform":
            offsets += tl.where(c < C, z - anchor, 0.0)
        higher = tl.maximum(peak, tl.max(z, axis=0))
        totals = totals * tl.exp2((peak - higher) * rate) + tl.exp2((z - higher) * rate)
        peak = higher
    return peak, tl.sum(totals, axis=0), tl.sum(offsets, axis=0)


@triton.jit
def _store(dlogits_ptr, c, gradient, C: tl.constexpr, W: tl.constexpr):
    gradient = tl.where(c < C, gradient, 0.0)
    tl.store(dlogits_ptr + c, gradient.to(dlogits_ptr.dtype.element_ty), mask=c < W)


@triton.jit
def _store_again(
    row_ptr,
    dlogits_ptr,
    peak,
    rate,
    slope,
    constant,
    C: tl.constexpr,
    W: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Read the row once more to store slope * exp((z - peak) / T) - constant."""
    for start in range(0, W, BLOCK):
        c = start + tl.arange(0, BLOCK)
        e = tl.exp2((_load(row_ptr, c, C, W) - peak) * rate)
        _store(dlogits_ptr, c, slope * e - constant, C, W)


@triton.jit
def _copy_without(row_ptr, copy_ptr, classes, valid, W: tl.constexpr, BLOCK: tl.constexpr):
    """Copy a row, with -inf at `classes`."""
    for start in range(0, W, BLOCK):
        c = start + tl.arange(0, BLOCK)
        tl.store(copy_ptr + c, tl.load(row_ptr + c, mask=c < W), mask=c < W)
    tl.debug_barrier()
    gone = tl.full(classes.shape, -float("inf"), tl.float32)
    tl.store(copy_ptr + classes, gone.to(copy_ptr.dtype.element_ty), mask=valid)
    tl.debug_barrier()


@triton.jit
def _stored(logits_ptr, topk_class_ptr, k, C: tl.constexpr, K: tl.constexpr):
    """The stored classes, which of the lanes hold one that exists, and the student's z there."""
    classes = tl.load(topk_class_ptr + k, mask=k < K, other=0).to(tl.int64)
    valid = (k < K) & (classes >= 0) & (classes < C)
    z = tl.load(logits_ptr + classes, mask=valid, other=0.0).to(tl.float32)
    return classes, valid, z


@triton.jit
def _tail_terms(
    r,
    log_r,
    total,
    tail_total,
    offset,
    shift,
    C: tl.constexpr,
    K: tl.constexpr,
    TAIL: tl.constexpr,
):
    """The tail's part of the loss, and its gradient slope * exp((z - peak) / T) - constant.

    offset is the sum of (z - anchor) / T over the tail, shift is (peak - anchor) / T.
    """
    loss = 0.0
    slope = 1.0 / total
    constant = 0.0
    if TAIL == "bucket":
        # Not 0 / 0 where neither side has a tail.
        tail_total = tl.maximum(tail_total, _TINY)
        loss = r * (log_r + tl.log(total) - tl.log(tail_total))
        slope -= r / tail_total
    if TAIL == "uniform":
        constant = r / (C - K)
        log_others = tl.log(tl.full([], C - K, tl.float32))
        loss = r * (log_r - log_others + tl.log(total) + shift) - constant * offset
    return tl.where(r > 0, loss, 0.0), slope, constant


@triton.jit
def _exact_bucket(
    logits_ptr,
    dlogits_ptr,
    classes,
    valid,
    r,
    log_r,
    peak,
    total,
    factor,
    rate,
    C: tl.constexpr,
    W: tl.constexpr,
    SWEEP: tl.constexpr,
):
    """`_tail_terms` for bucket without a subtraction; stores the gradient too.

    The row goes to dlogits without its stored classes: what is summed there is the tail alone,
    relative to its own largest z, so that it cannot vanish either.
    """
    _copy_without(logits_ptr, dlogits_ptr, classes, valid, W, SWEEP)
    tail_peak, tail_total, _ = _sums(dlogits_ptr, 0.0, rate, C, W, "bucket", SWEEP)
    tail_total = tl.maximum(tail_total, _TINY)
    log2_q_tail = (tail_peak - peak) * rate + tl.log2(tail_total) - tl.log2(total)
    slope = factor * (tl.exp2((tail_peak - peak) * rate) / total - r / tail_total)
    _store_again(dlogits_ptr, dlogits_ptr, tail_peak, rate, slope, 0.0, C, W, SWEEP)
    return r * (log_r - log2_q_tail / _LOG2_E)


@triton.jit
def _row(
    logits_ptr,
    topk_logit_ptr,
    topk_class_ptr,
    tail_lse_ptr,
    row_loss_ptr,
    dlogits_ptr,
    weight,
    temperature,
    inv_T,
    grad_scale,
    C: tl.constexpr,
    W: tl.constexpr,
    K: tl.constexpr,
    TAIL: tl.constexpr,
    RESIDENT: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SWEEP: tl.constexpr,
):
    """Loss and gradient of a row whose weight is not 0."""
    rate = inv_T * _LOG2_E
    k = tl.arange(0, BLOCK_K)
    classes, valid, stored = _stored(logits_ptr, topk_class_ptr, k, C, K)
    # A class that does not exist makes its row NaN; it never touches other memory.
    weight = tl.where(tl.sum(valid.to(tl.int32), axis=0) < K, float("nan"), weight)
    log_p, log_r = _log_teacher(topk_logit_ptr, tail_lse_ptr, k, inv_T, K, TAIL)
    p, r = tl.exp(log_p), tl.exp(log_r)
    anchor = tl.max(tl.where(valid, stored, _LOWEST), axis=0)

    offset = 0.0
    if RESIDENT:
        c = tl.arange(0, BLOCK_C)
        z = _load(logits_ptr, c, C, W)
        if TAIL == "uniform":
            offset = tl.sum(tl.where(c < C, z - anchor, 0.0), axis=0)
        peak = tl.maximum(tl.max(z, axis=0), _LOWEST)
        e = tl.exp2((z - peak) * rate)
        total = tl.sum(e, axis=0)
    else:
        peak, total, offset = _sums(logits_ptr, anchor, rate, C, W, TAIL, SWEEP)
    offset -= tl.sum(tl.where(valid, stored - anchor, 0.0), axis=0)
    e_stored = tl.where(valid, tl.exp2((stored - peak) * rate), 0.0)
    tail_total = total - tl.sum(e_stored, axis=0)

    log_q = (stored - peak) * inv_T - tl.log(total)
    loss = tl.sum(tl.where(p > 0, p * (log_p - log_q), 0.0), axis=0)
    factor = weight * grad_scale * temperature
    doubtful = False
    if TAIL == "bucket":
        # The subtraction left an error of some eps * total in tail_total. The loss and the
        # gradient see it times r / tail_total: harmless, unless the student's tail is the smaller.
        doubtful = (r > 0) & (tail_total < 0.5 * r * total)
    # dlogits may be logits: everybody must have gathered before anybody stores.
    tl.debug_barrier()
    if doubtful:
        loss += _exact_bucket(
            logits_ptr, dlogits_ptr, classes, valid, r, log_r, peak, total, factor, rate,
            C, W, SWEEP,
        )  # fmt: skip
    else:
        shift = (peak - anchor) * inv_T
        tail_loss, slope, constant = _tail_terms(
            r, log_r, total, tail_total, offset * inv_T, shift, C, K, TAIL
        )
        loss += tail_loss
        if RESIDENT:
            _store(dlogits_ptr, c, factor * slope * e - factor * constant, C, W)
        else:
            _store_again(
                logits_ptr, dlogits_ptr, peak, rate, factor * slope, factor * constant, C, W, SWEEP
            )
    tl.store(row_loss_ptr, loss * weight * temperature * temperature)
    # The stored classes get their own values; the row's were for the others.
    tl.debug_barrier()
    gradient = factor * (tl.exp(log_q) - p)
    tl.store(dlogits_ptr + classes, gradient.to(dlogits_ptr.dtype.element_ty), mask=valid)


@triton.jit
def sparse_kl_kernel(
    logits_ptr,  # [B, W]
    topk_logit_ptr,  # [B, K]
    topk_class_ptr,  # [B, K] integers in [0, C)
    tail_lse_ptr,  # [B] float32; not read by renorm
    weight_ptr,  # [B] float32; read if WEIGHTED
    row_loss_ptr,  # [B] float32, out
    dlogits_ptr,  # [B, W], out; may be logits_ptr
    temperature,
    inv_T,
    grad_scale,
    LOGITS_STRIDE: tl.constexpr,
    DLOGITS_STRIDE: tl.constexpr,
    C: tl.constexpr,
    W: tl.constexpr,
    K: tl.constexpr,
    TAIL: tl.constexpr,
    WEIGHTED: tl.constexpr,
    RESIDENT: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SWEEP: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)  # B * W can pass 2**31
    logits_ptr += row * LOGITS_STRIDE
    dlogits_ptr += row * DLOGITS_STRIDE
    topk_logit_ptr += row * K
    topk_class_ptr += row * K
    weight = 1.0
    if WEIGHTED:
        weight = tl.load(weight_ptr + row)
    if weight == 0.0:
        tl.store(row_loss_ptr + row, 0.0)
        for start in range(0, W, SWEEP):
            c = start + tl.arange(0, SWEEP)
            _store(dlogits_ptr, c, tl.zeros([SWEEP], tl.float32), C, W)
    else:
        _row(
            logits_ptr, topk_logit_ptr, topk_class_ptr, tail_lse_ptr + row, row_loss_ptr + row,
            dlogits_ptr, weight, temperature, inv_T, grad_scale,
            C, W, K, TAIL, RESIDENT, BLOCK_C, BLOCK_K, SWEEP,
        )  # fmt: skip
