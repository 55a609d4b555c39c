"""Triton sparse_kl, one row a program; `launch` starts it, `op` has checked what it is given.

B rows of W columns, the first C of them classes; K classes stored per row (K <= BLOCK_K). A row
that fits BLOCK_C stays in registers: it is read once and written once. A wider one is swept over
twice, the second time from its end, which the first sweep has just left in the cache.
"""
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

import triton
import triton.language as tl

from softlabel.kernels.sparse_kl.gpu.one_row import one_row
from softlabel.kernels.sparse_kl.gpu.row_sweeps import load_ahead, store_zeros


@triton.jit
def _weighed_row(
    row,
    raw,
    logits_ptr,
    topk_logit_ptr,
    topk_class_ptr,
    tail_lse_ptr,
    target_ptr,
    weight_ptr,
    losses_ptr,
    dlogits_ptr,
    B,
    scale,
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
    POWER: tl.constexpr,
    RESIDENT: tl.constexpr,
    PREFETCH: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SWEEP: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    row = row.to(tl.int64)  # B * W can pass 2**31
    logits_ptr += row * LOGITS_STRIDE
    dlogits_ptr += row * DLOGITS_STRIDE
    losses_ptr += row
    weight = 1.0
    if WEIGHTED:
        weight = tl.load(weight_ptr + row)
    if weight == 0.0:
        tl.store(losses_ptr, 0.0)
        tl.store(losses_ptr + B, 0.0)
        tl.store(losses_ptr + 2 * B, 0.0)
        store_zeros(dlogits_ptr, C, W, SWEEP)
    else:
        one_row(
            raw, logits_ptr, topk_logit_ptr + row * K, topk_class_ptr + row * K,
            tail_lse_ptr + row, target_ptr + row, losses_ptr, dlogits_ptr, weight, scale,
            soft_weight, hard_weight, smoothing, ignore_index, temperature, inv_T, B,
            C, W, K, TAIL, SOFT, HARD, SMOOTH, POWER, RESIDENT, PREFETCH, BLOCK_C, BLOCK_K, SWEEP,
            NUM_STAGES,
        )  # fmt: skip


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
def row_kernel(
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
    RESIDENT: tl.constexpr,
    PREFETCH: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SWEEP: tl.constexpr,
    NUM_STAGES: tl.constexpr,
):
    """One row, or if PREFETCH every num_programs-th row, each loaded while the last is stored."""
    scale = grad_scale
    if SCALED:
        scale *= tl.load(scale_ptr)
    first = tl.program_id(0)
    if PREFETCH:
        step = tl.num_programs(0)
        row = first
        raw = load_ahead(logits_ptr, row, B, LOGITS_STRIDE, W, BLOCK_C)
        for _ in tl.range(first, B, step, num_stages=1):
            ahead = load_ahead(logits_ptr, row + step, B, LOGITS_STRIDE, W, BLOCK_C)
            _weighed_row(
                row, raw, logits_ptr, topk_logit_ptr, topk_class_ptr, tail_lse_ptr, target_ptr,
                weight_ptr, losses_ptr, dlogits_ptr, B, scale, soft_weight, hard_weight,
                smoothing, ignore_index, temperature, inv_T, LOGITS_STRIDE, DLOGITS_STRIDE,
                C, W, K, TAIL, SOFT, HARD, SMOOTH, WEIGHTED, POWER, RESIDENT, PREFETCH, BLOCK_C,
                BLOCK_K, SWEEP, NUM_STAGES,
            )  # fmt: skip
            raw = ahead
            row += step
    else:
        _weighed_row(
            first, 0.0, logits_ptr, topk_logit_ptr, topk_class_ptr, tail_lse_ptr, target_ptr,
            weight_ptr, losses_ptr, dlogits_ptr, B, scale, soft_weight, hard_weight,
            smoothing, ignore_index, temperature, inv_T, LOGITS_STRIDE, DLOGITS_STRIDE,
            C, W, K, TAIL, SOFT, HARD, SMOOTH, WEIGHTED, POWER, RESIDENT, PREFETCH, BLOCK_C,
            BLOCK_K, SWEEP, NUM_STAGES,
        )  # fmt: skip
