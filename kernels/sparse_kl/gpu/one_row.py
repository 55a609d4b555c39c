"""One row of sparse_kl in Triton: every loss, every gradient, float32 inside.

z are logits, q the student's probabilities, p and r the teacher's for the stored classes and for
all others together, T the temperature, y the class of the hard label. `peak` is the row's largest
z, e = exp((z - peak) / T) with sum `total`, e1 = exp(z - peak) with sum `total1`. Off the stored
classes and y a gradient is soft_slope * e + hard_slope * e1 - constant: one or two multiply-adds.
The stored classes and y get their own values, written over the row's.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from softlabel.kernels.sparse_kl.gpu.row_sweeps import (
    copy_tail,
    exponentials,
    load,
    store,
    store_zeros,
    sweep_store,
    sweep_sums,
)
from softlabel.kernels.sparse_kl.gpu.row_terms import (
    LOG2_E,
    LOWEST,
    TINY,
    hard_label,
    mixed,
    soft_loss,
    teacher,
)


@triton.jit
def one_row(
    raw,
    logits_ptr,
    topk_logit_ptr,
    topk_class_ptr,
    tail_lse_ptr,
    target_ptr,
    losses_ptr,
    dlogits_ptr,
    weight,
    scale,
    soft_weight,
    hard_weight,
    smoothing,
    ignore_index,
    temperature,
    inv_T,
    B,
    C: tl.constexpr,
    W: tl.constexpr,
    K: tl.constexpr,
    TAIL: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    SMOOTH: tl.constexpr,
    POWER: tl.constexpr,
    RESIDENT: tl.constexpr,
    PREFETCH: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SWEEP: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """Losses and gradient of a row whose weight is not 0; `raw` is the row if PREFETCH."""
    READ: tl.constexpr = HARD or TAIL != "subset"
    OFFSETS: tl.constexpr = SMOOTH or (SOFT and TAIL == "uniform")
    rate = inv_T * LOG2_E
    c = tl.arange(0, BLOCK_C)
    if PREFETCH:
        z = tl.where(c < C, raw.to(tl.float32), -float("inf"))
    elif READ and RESIDENT:
        z = load(logits_ptr, c, C, W)
    anchor = 0.0
    if SOFT:
        classes, valid, n, log_p, log_r, wrong = teacher(
            topk_logit_ptr, topk_class_ptr, tail_lse_ptr, inv_T, C, K, TAIL, BLOCK_K
        )
        stored = tl.load(logits_ptr + classes, mask=valid, other=0.0).to(tl.float32)
        # A class that does not exist makes its row NaN; it never touches other memory.
        weight = tl.where(wrong, float("nan"), weight)
        anchor = tl.max(tl.where(valid, stored, LOWEST), axis=0)
        anchor = tl.where(n > 0, anchor, 0.0)
    if HARD:
        y, labelled, wrong = hard_label(target_ptr, ignore_index, C)
        weight = tl.where(wrong, float("nan"), weight)
        z_y = tl.load(logits_ptr + y).to(tl.float32)

    peak, total, total1, offset = 0.0, 1.0, 1.0, 0.0
    if READ and RESIDENT:
        peak = tl.maximum(tl.max(z, axis=0), LOWEST)
        if OFFSETS:
            offset = tl.sum(tl.where(c < C, z - anchor, 0.0), axis=0)
        e, e1 = exponentials(z, peak, rate, POWER, HARD)
        total = tl.sum(e, axis=0)
        if HARD:
            total1 = tl.sum(e1, axis=0)
    elif READ:
        peak, total, total1, offset = sweep_sums(
            logits_ptr, anchor, rate, C, W, POWER, HARD, OFFSETS, SWEEP, NUM_STAGES
        )

    soft_slope, hard_slope, constant, loss = 0.0, 0.0, 0.0, 0.0
    soft_factor = weight * scale * soft_weight * temperature
    hard_factor = weight * scale * hard_weight
    # Compiled in: a branch on False alone would be compiled too, with names that do not exist.
    BUCKET: tl.constexpr = SOFT and TAIL == "bucket"
    doubtful = False
    if SOFT:
        # Not 0 but weight * 0: a row of nothing but wrong classes is NaN too.
        soft_factor = tl.where(n > 0, soft_factor, weight * 0.0)
        loss, p, q, slope, constant, r, tail_total = soft_loss(
            stored, valid, n, log_p, log_r, anchor, peak, total, offset, inv_T, C, TAIL
        )
        constant *= soft_factor
        soft_slope = soft_factor * slope
        # The subtraction left an error of some eps * total in tail_total. The loss and the
        # gradient see it times r / tail_total: harmless, unless the student's tail is the smaller.
        if TAIL == "bucket":
            doubtful = (r > 0) & (tail_total < 0.25 * r * total)
    soft_constant = constant
    # A row without classes and without a label is not looked at either.
    alive = weight != weight
    if SOFT:
        alive = alive | (n > 0)
    if HARD:
        alive = alive | labelled
        hard_factor = tl.where(labelled, hard_factor, 0.0)
        hard_slope = hard_factor / total1
        if SMOOTH:
            constant += hard_factor * (smoothing / C)

    # dlogits may be logits: everybody must have gathered before anybody stores.
    tl.debug_barrier()
    off_peak = peak
    if BUCKET and doubtful:
        off_peak, tail_total = copy_tail(logits_ptr, dlogits_ptr, classes, valid, rate, C, W, SWEEP)
        shrink = (off_peak - peak) * rate
        loss += r * (log_r - (shrink + tl.log2(tail_total) - tl.log2(total)) / LOG2_E)
        soft_slope = soft_factor * (tl.exp2(shrink) / total - r / tail_total)
        sweep_store(
            dlogits_ptr, dlogits_ptr, off_peak, rate, soft_slope, peak, hard_slope, constant,
            C, W, 0, HARD, SWEEP, 1,
        )  # fmt: skip
    else:
        if BUCKET:
            tail_total = tl.maximum(tail_total, TINY)
            tail_loss = r * (log_r + tl.log(total) - tl.log(tail_total))
            loss += tl.where(r == 0, 0.0, tail_loss)
        if alive and READ:
            if RESIDENT:
                if HARD and POWER == 0:
                    gradient = soft_slope * e + hard_slope * e1 - constant
                else:
                    gradient = mixed(e, soft_slope, hard_slope, POWER, HARD) - constant
                store(dlogits_ptr, c, gradient, C, W)
            else:
                sweep_store(
                    logits_ptr, dlogits_ptr, peak, rate, soft_slope, peak, hard_slope, constant,
                    C, W, POWER, HARD, SWEEP, NUM_STAGES,
                )  # fmt: skip
        else:
            store_zeros(dlogits_ptr, C, W, SWEEP)

    # The stored classes and y get their own values; the row's were for the others.
    tl.debug_barrier()
    hard_loss = 0.0
    if HARD:
        log_total1 = tl.log(total1)
        hard_loss = (1.0 - smoothing) * (peak - z_y + log_total1)
        if SMOOTH:
            hard_loss += smoothing * (peak - anchor + log_total1 - offset / C)
        hard_loss = tl.where(labelled, hard_loss, 0.0)
        at_y = hard_factor * (1.0 - smoothing)
        z_over = tl.exp2((z_y - off_peak) * rate)
        gradient_y = soft_slope * z_over - constant + hard_slope * tl.exp2((z_y - peak) * LOG2_E)
        missed = labelled
        if SOFT:
            missed = labelled & (tl.max((valid & (classes == y)).to(tl.int32), axis=0) == 0)
        gradient_y = (gradient_y - at_y).to(dlogits_ptr.dtype.element_ty)
        tl.store(dlogits_ptr + y, gradient_y, mask=missed)
    if SOFT:
        gradient = soft_factor * (q - p)
        if HARD:
            gradient += hard_slope * tl.exp2((stored - peak) * LOG2_E) - (constant - soft_constant)
            gradient -= tl.where(labelled & (classes == y), at_y, 0.0)
        tl.store(dlogits_ptr + classes, gradient.to(dlogits_ptr.dtype.element_ty), mask=valid)
        loss = tl.where(n > 0, loss * temperature * temperature, 0.0)
    tl.store(losses_ptr, weight * (soft_weight * loss + hard_weight * hard_loss))
    tl.store(losses_ptr + B, weight * loss)
    tl.store(losses_ptr + 2 * B, weight * hard_loss)
