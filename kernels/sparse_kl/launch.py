"""Starts the Triton kernel: its blocks, its warps, its pointers."""

import torch
import triton
from torch import Tensor

from softlabel.kernels.sparse_kl.kernel import sparse_kl_kernel
from softlabel.kernels.sparse_kl.targets import Targets

_RESIDENT_WIDTH = 32768
"""The widest row that is kept in registers between its sums and its gradient."""

_SWEEP_BLOCK = 8192
"""Columns at a time where a row is swept over."""


def launch_config(width: int, top_k: int) -> dict[str, int | bool]:
    """Block sizes and warps, from compiled code (no spills), not yet from measured times."""
    block, block_k = triton.next_power_of_2(width), triton.next_power_of_2(top_k)
    resident = block <= _RESIDENT_WIDTH
    num_warps = min(16, block // 1024) if resident else 8
    return {
        "RESIDENT": resident,
        "BLOCK_C": block,
        "BLOCK_K": block_k,
        "SWEEP": min(block, _SWEEP_BLOCK),
        "num_warps": min(16, max(1, num_warps, block_k // 32)),
        # What the error bounds were checked with; triton is about to change its default.
        "enable_fp_fusion": True,
    }


def sparse_kl_grad(logits: Tensor, targets: Targets, *, grad_scale: float, out: Tensor) -> Tensor:
    """Row losses; the gradient of `grad_scale * sum` goes to `out`, which may be `logits`."""
    if not logits.is_cuda and isinstance(sparse_kl_kernel, triton.JITFunction):
        raise ValueError(
            f"backend 'triton' needs CUDA tensors, got {logits.device}; "
            "on the CPU it runs only with TRITON_INTERPRET=1 set before triton is first imported"
        )
    (B, W), K = logits.shape, targets.topk_class.shape[1]
    row_loss = torch.empty(B, dtype=torch.float32, device=logits.device)
    # What is not given is never read, but a pointer has to be passed.
    tail_lse = row_loss if targets.tail_lse is None else targets.tail_lse.contiguous()
    weight = row_loss if targets.weight is None else targets.weight.contiguous()
    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        sparse_kl_kernel[(B,)](
            logits,
            targets.topk_logit.contiguous(),
            targets.topk_class.contiguous(),
            tail_lse,
            weight,
            row_loss,
            out,
            targets.temperature,
            1.0 / targets.temperature,
            float(grad_scale),
            LOGITS_STRIDE=logits.stride(0),
            DLOGITS_STRIDE=out.stride(0),
            C=targets.num_classes,
            W=W,
            K=K,
            TAIL=targets.tail,
            WEIGHTED=targets.weight is not None,
            **launch_config(W, K),
        )
    return row_loss
