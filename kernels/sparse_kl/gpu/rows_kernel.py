"""Triton sparse_kl for narrow rows: ROWS of them a program, in registers. As `one_row` else.

Every value that is one a row there is a column of [ROWS, 1] here, so that it meets tiles of
[ROWS, BLOCK_C] columns and [ROWS, BLOCK_K] stored classes without a thought.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from softlabel.kernels.sparse_kl.gpu.row_terms import LOG2_E, LOWEST, TINY, power


@triton.jit
def _total(x):
    return tl.sum(x, axis=1)[:, None]


@triton.jit
def _largest(x):
    return tl.max(x, axis=1)[:, None]


@triton.jit
def _teacher(
    topk_logit_ptr,
    topk_class_ptr,
    tail_lse_ptr,
    row,
    live,
    inv_T,
    C: tl.constexpr,
    K: tl.constexpr,
    TAIL: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """`row_terms.teacher` of many rows; rows that are not live store nothing."""
    k = tl.arange(0, BLOCK_K)[None, :]
    there = live & (k < K)
    classes = tl.load(topk_class_ptr + row * K + k, mask=there, other=0).to(tl.int64)
    valid = there & (classes >= 0) & (classes < C)
    n = _total(valid.to(tl.int32))
    wrong = _largest((there & (classes >= C)).to(tl.int32)) > 0
    v = tl.load(topk_logit_ptr + row * K + k, mask=valid, other=-float("inf"))
    v = v.to(tl.float32) * inv_T
    log_r = tl.full(row.shape, -float("inf"), tl.float32)
    if TAIL != "renorm" and TAIL != "subset":
        log_r = tl.load(tail_lse_ptr + row, mask=live, other=-float("inf"))
    peak = tl.where(n > 0, tl.maximum(_largest(v), log_r), 0.0)
    log_total = tl.log(_total(tl.exp(v - peak)) + tl.exp(log_r - peak))
    log_p = tl.where(valid, v - peak - log_total, -float("inf"))
    log_r = tl.where(n > 0, log_r - peak - log_total, -float("inf"))
    return classes, valid, n, log_p, log_r, wrong


@triton.jit
def _exact_tail(z, classes_ptr, row, live, rate, K: tl.constexpr, BLOCK_C: tl.constexpr):
    """The largest z that is not stored, and the sum of e relative to it: nothing cancels."""
    c = tl.arange(0, BLOCK_C)[None, :]
    for k in range(K):
        stored = tl.load(classes_ptr + row * K + k, mask=live, other=-1)
        z = tl.where(c == stored.to(tl.int64), -float("inf"), z)
    peak = tl.maximum(_largest(z), LOWEST)
    return peak, tl.maximum(_total(tl.exp2((z - peak) * rate)), TINY)


# One binary for every batch: an int would else be compiled in where it is 1 or 16 * n, and so would
# the alignment of labels that are slices of something larger.
@triton.jit(
    do_not_specialize=["B", "ignore_index"],
    do_not_specialize_on_alignment=[
        "topk_logit_ptr",
        "topk_class_ptr",
        "tail_lse_ptr",
        "target_ptr",
        "weight_ptr",
        "scale_ptr",
        "losses_ptr",
    ],
)
def rows_kernel(
    logits_ptr,  # [B, W]
    topk_logit_ptr,  # [B, K]
    topk_class_ptr,  # [B, K] integers below C, negative for none
    tail_lse_ptr,  # [B] float32; read by bucket, uniform, truncate
    target_ptr,  # [B] integers in [0, C) or ignore_index; read if HARD
    weight_ptr,  # [B] float32; read if WEIGHTED
    scale_ptr,  # [1] float32; read if SCALED
    losses_ptr,  # [3, B] float32, out: total, soft, hard
    dlogits_ptr,  # [B, W], out; may be logits_ptr
    B,
    grad_scale,
    soft_weight,
    hard_weight,
    smoothing,
    ignore_index,
    temperature,
    inv_T,
    LOGITS_STRIDE: tl.constexpr,
    DLOGITS_STRIDE: tl.constexpr,
    C: tl.constexpr,
    W: tl.constexpr,
    K: tl.constexpr,
    TAIL: tl.constexpr,
    SOFT: tl.constexpr,
    HARD: tl.constexpr,
    SMOOTH: tl.constexpr,
    WEIGHTED: tl.constexpr,
    SCALED: tl.constexpr,
    POWER: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    inside = row < B
    weight = tl.where(inside, 1.0, 0.0)
    if WEIGHTED:
        weight = tl.load(weight_ptr + row, mask=inside, other=0.0)
    live = inside & (weight != 0.0)
    scale = grad_scale
    if SCALED:
        scale *= tl.load(scale_ptr)
    rate = inv_T * LOG2_E
    c = tl.arange(0, BLOCK_C)[None, :]
    row_ptr = logits_ptr + row * LOGITS_STRIDE
    z = tl.load(row_ptr + c, mask=live & (c < W), other=0.0).to(tl.float32)
    z = tl.where(c < C, z, -float("inf"))
    peak = tl.maximum(_largest(z), LOWEST)
    e = tl.exp2((z - peak) * rate)
    total = _total(e)

    soft_loss, hard_loss = tl.zeros_like(weight), tl.zeros_like(weight)
    gradient = tl.zeros_like(z)
    if SOFT:
        classes, valid, n, log_p, log_r, wrong = _teacher(
            topk_logit_ptr, topk_class_ptr, tail_lse_ptr, row, live, inv_T, C, K, TAIL, BLOCK_K
        )
        weight = tl.where(wrong, float("nan"), weight)
        stored = tl.load(row_ptr + classes, mask=valid, other=0.0).to(tl.float32)
    if HARD:
        y = tl.load(target_ptr + row, mask=live, other=ignore_index).to(tl.int64)
        labelled = live & (y != ignore_index)
        weight = tl.where(labelled & ((y < 0) | (y >= C)), float("nan"), weight)
        labelled = labelled & (y >= 0) & (y < C)
        y = tl.where(labelled, y, 0)
        z_y = tl.load(row_ptr + y, mask=labelled, other=0.0).to(tl.float32)
    # A row without classes and without a label is not looked at either.
    alive = live & (weight != weight)
    if HARD:
        alive = alive | labelled
    if SOFT:
        alive = alive | (n > 0)
        factor = tl.where(n > 0, weight * scale * soft_weight * temperature, weight * 0.0)
        p, r = tl.exp(log_p), tl.exp(log_r)
        anchor = _largest(tl.where(valid, stored, LOWEST))
        log_q = (stored - peak) * inv_T - tl.log(total)
        if TAIL == "subset":
            e_subset = tl.where(valid, tl.exp2((stored - anchor) * rate), 0.0)
            log_q = (stored - anchor) * inv_T - tl.log(_total(e_subset))
        q = tl.exp(log_q)
        soft_loss = _total(tl.where(p == 0, 0.0, p * (log_p - log_q)))
        if TAIL == "renorm":
            gradient = factor * (e / total)
        elif TAIL == "truncate":
            mass = _total(p)
            q *= mass
            gradient = factor * (mass * (e / total))
        elif TAIL == "uniform":
            others = (C - n).to(tl.float32)
            constant = tl.where(n > 0, r / others, 0.0)
            offset = _total(tl.where(c < C, z - anchor, 0.0))
            offset -= _total(tl.where(valid, stored - anchor, 0.0))
            log_q_at_anchor = (anchor - peak) * inv_T - tl.log(total)
            tail_loss = r * (log_r - tl.log(others) - log_q_at_anchor) - constant * offset * inv_T
            soft_loss += tl.where(r == 0, 0.0, tail_loss)
            gradient = factor * (e / total - constant)
        elif TAIL == "bucket":
            tail_peak = peak
            e_stored = tl.where(valid, tl.exp2((stored - peak) * rate), 0.0)
            tail_total = total - _total(e_stored)
            # As in one_row: what the subtraction left may be noise. All rows or none.
            doubtful = (r > 0) & (tail_total < 0.25 * r * total)
            if tl.max(tl.max(doubtful.to(tl.int32), axis=1), axis=0) > 0:
                tail_peak, tail_total = _exact_tail(z, topk_class_ptr, row, live, rate, K, BLOCK_C)
            tail_total = tl.maximum(tail_total, TINY)
            shrink = (tail_peak - peak) * rate
            log_q_tail = (shrink + tl.log2(tail_total) - tl.log2(total)) / LOG2_E
            soft_loss += tl.where(r == 0, 0.0, r * (log_r - log_q_tail))
            e_tail = tl.exp2((z - tail_peak) * rate)
            gradient = factor * (e_tail * (tl.exp2(shrink) / total - r / tail_total))
        soft_loss = tl.where(n > 0, soft_loss * temperature * temperature, 0.0)
        stored_gradient = factor * (q - p)
    if HARD:
        hard_factor = tl.where(labelled, weight * scale * hard_weight, 0.0)
        e1 = power(e, POWER) if POWER > 0 else tl.exp2((z - peak) * LOG2_E)
        total1 = _total(e1)
        shared = hard_factor * (smoothing / C)
        hard_loss = (1.0 - smoothing) * (peak - z_y + tl.log(total1))
        if SMOOTH:
            mean = _total(tl.where(c < C, peak - z, 0.0)) / C
            hard_loss += smoothing * (mean + tl.log(total1))
        hard_loss = tl.where(labelled, hard_loss, 0.0)
        at_y = hard_factor * (1.0 - smoothing)
        gradient += hard_factor * (e1 / total1) - shared
        gradient -= tl.where(c == y, at_y, 0.0)
        if SOFT:
            e1_stored = tl.exp2((stored - peak) * LOG2_E)
            stored_gradient += hard_factor * (e1_stored / total1) - shared
            stored_gradient -= tl.where(classes == y, at_y, 0.0)

    dlogits_row_ptr = dlogits_ptr + row * DLOGITS_STRIDE
    # dlogits may be logits: everybody must have gathered before anybody stores.
    tl.debug_barrier()
    gradient = tl.where(alive & (c < C), gradient, 0.0).to(dlogits_ptr.dtype.element_ty)
    tl.store(dlogits_row_ptr + c, gradient, mask=inside & (c < W))
    if SOFT:
        # The stored classes get their own values; the row's were for the others.
        tl.debug_barrier()
        stored_gradient = stored_gradient.to(dlogits_ptr.dtype.element_ty)
        tl.store(dlogits_row_ptr + classes, stored_gradient, mask=valid)
    soft_loss = tl.where(live, weight * soft_loss, 0.0)
    hard_loss = tl.where(live, weight * hard_loss, 0.0)
    tl.store(losses_ptr + row, soft_weight * soft_loss + hard_weight * hard_loss, mask=inside)
    tl.store(losses_ptr + B + row, soft_loss, mask=inside)
    tl.store(losses_ptr + 2 * B + row, hard_loss, mask=inside)
