"""Starts the Triton kernels: what is compiled in, their grid, their pointers."""

import functools
from typing import Literal

import torch
import triton
from torch import Tensor

from softlabel.kernels.sparse_kl.gpu.configs import (
    Config,
    Problem,
    config_for,
    constexprs,
    options,
    reads_rows,
)
from softlabel.kernels.sparse_kl.gpu.row_kernel import row_kernel
from softlabel.kernels.sparse_kl.gpu.rows_kernel import rows_kernel
from softlabel.kernels.sparse_kl.gpu.scale_kernel import scale_kernel
from softlabel.kernels.sparse_kl.targets import Targets

_DTYPES: dict[torch.dtype, Literal["fp32", "bf16", "fp16"]] = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
}


def sparse_kl_grad(
    logits: Tensor,
    targets: Targets,
    *,
    grad_scale: float,
    scale_tensor: Tensor | None,
    out: Tensor,
    config: Config | None = None,
) -> Tensor:
    """Row losses [3, B] (total, soft, hard); the gradient goes to `out`, which may be `logits`.

    `config` None takes the table's.
    """
    _check_device(logits)
    B = len(logits)
    losses = torch.empty(3, B, dtype=torch.float32, device=logits.device)
    problem = problem_of(logits, targets, out, scaled=scale_tensor is not None)
    if not problem.soft and not problem.hard:
        out.zero_()
        return losses.zero_()
    config = config or config_for(problem, _architecture(logits.device))
    kernel = rows_kernel if config.form == "rows" else row_kernel
    programs = triton.cdiv(B, config.rows)
    if config.prefetch and reads_rows(problem):
        programs = min(programs, _multiprocessors(logits.device))

    def given(tensor: Tensor | None) -> Tensor:
        # What is not given is never read, but a pointer has to be passed.
        return losses if tensor is None else tensor.contiguous()

    with torch.cuda.device_of(logits):  # type: ignore[no-untyped-call]
        kernel[(programs,)](
            logits,
            targets.topk_logit.contiguous(),
            targets.topk_class.contiguous(),
            given(targets.tail_lse),
            given(targets.target if problem.hard else None),
            given(targets.weight),
            given(scale_tensor),
            losses,
            out,
            B,
            float(grad_scale),
            # Floats: an int would be compiled in, and a 1 even as a constant.
            float(targets.soft_weight),
            float(targets.hard_weight),
            float(targets.label_smoothing),
            targets.ignore_index,
            targets.temperature,
            1.0 / targets.temperature,
            **constexprs(problem, config),
            **options(config),
        )
    return losses


def problem_of(logits: Tensor, targets: Targets, out: Tensor, *, scaled: bool) -> Problem:
    """What of a call is compiled in."""
    soft = targets.soft_weight != 0 and targets.topk_class.shape[1] > 0
    hard = targets.hard_weight != 0 and targets.target is not None
    T = targets.temperature
    return Problem(
        num_classes=targets.num_classes,
        width=logits.shape[1],
        logits_stride=logits.stride(0),
        dlogits_stride=out.stride(0),
        top_k=targets.topk_class.shape[1],
        tail=targets.tail if soft else "renorm",
        soft=soft,
        hard=hard,
        smooth=hard and targets.label_smoothing > 0,
        weighted=targets.weight is not None,
        scaled=scaled,
        # Without hard labels nothing asks for exp(z) beside exp(z / T).
        power=(int(T) if T in range(1, 9) else 0) if hard else 1,
        dtype=_DTYPES[logits.dtype],
    )


def scale_rows(dlogits: Tensor, factor: Tensor) -> None:
    """Multiply [B, W] rows by factor [B] or [1] in place; factors of 1 cost no traffic."""
    B, W = dlogits.shape
    block = min(8192, triton.next_power_of_2(W))
    with torch.cuda.device_of(dlogits):  # type: ignore[no-untyped-call]
        scale_kernel[(B,)](
            dlogits,
            factor,
            DLOGITS_STRIDE=dlogits.stride(0),
            PER_ROW=factor.numel() > 1,
            W=W,
            BLOCK=block,
            num_warps=max(1, min(8, block // 1024)),
        )


def _check_device(logits: Tensor) -> None:
    if not logits.is_cuda and isinstance(row_kernel, triton.JITFunction):
        raise ValueError(
            f"backend 'triton' needs CUDA tensors, got {logits.device}; "
            "on the CPU it runs only with TRITON_INTERPRET=1 set before triton is first imported"
        )


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    """How many programs run side by side; two in the interpreter."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def _architecture(device: torch.device) -> int:
    """80, 90, 100, ...; the interpreter plays a Hopper."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor
