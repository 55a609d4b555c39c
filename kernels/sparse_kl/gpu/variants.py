"""The kernels as they ship, for compilers that have no GPU: each problem with its table entry."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from softlabel.kernels.sparse_kl.gpu.configs import (
    Config,
    Problem,
    config_for,
    constexprs,
    options,
)
from softlabel.kernels.sparse_kl.gpu.row_kernel import row_kernel
from softlabel.kernels.sparse_kl.gpu.rows_kernel import rows_kernel


class Specialization(NamedTuple):
    """What Triton makes one binary of."""

    kernel: Any
    """The function that `triton.jit` made."""
    signature: dict[str, str]
    """Type by argument that is not compiled in."""
    constexprs: dict[str, object]
    divisible: tuple[str, ...]
    """Arguments that are divisible by 16, as the launcher sees them."""
    options: dict[str, int | bool]


def specialization(problem: Problem, config: Config) -> Specialization:
    """What a launch of `problem` under `config` compiles."""
    signature = {
        "logits_ptr": f"*{problem.dtype}",
        "topk_logit_ptr": "*fp16",
        "topk_class_ptr": "*i32",
        "tail_lse_ptr": "*fp32",
        "target_ptr": "*i64",
        "weight_ptr": "*fp32",
        "scale_ptr": "*fp32",
        "losses_ptr": "*fp32",
        "dlogits_ptr": f"*{problem.dtype}",
        "B": "i32",
        "grad_scale": "fp32",
        "soft_weight": "fp32",
        "hard_weight": "fp32",
        "smoothing": "fp32",
        "ignore_index": "i32",
        "temperature": "fp32",
        "inv_T": "fp32",
    }
    return Specialization(
        kernel=rows_kernel if config.form == "rows" else row_kernel,
        signature=signature,
        constexprs=constexprs(problem, config),
        divisible=("logits_ptr", "dlogits_ptr"),
        options=options(config),
    )


# Classes, columns (a head padded to a multiple of 64, where it pays), stored classes.
_SHAPES = (
    (10, 10, 10),
    (100, 100, 16),
    (250, 250, 16),
    (1000, 1024, 16),
    (1000, 1000, 50),
    (8000, 8000, 16),
    (16000, 16000, 16),
    (21841, 21888, 50),
    (32000, 32000, 100),
    (151936, 151936, 100),
)
# Tail (None: no stored classes), hard labels, smoothing, power.
_FEATURES = (
    ("bucket", False, False, 1),
    ("uniform", True, True, 1),
    ("bucket", True, True, 4),
    ("renorm", True, False, 0),
    ("truncate", False, False, 1),
    ("subset", False, False, 1),
    (None, True, True, 1),
)

# Rules that look at little: their code differs by form, not by width.
_SMALL_RULES = ("subset", None)
_SMALL_RULES_CLASSES = (10, 1000, 21841, 151936)


def shipped_variants(arch: int, dtype: Any) -> Iterator[tuple[str, Specialization]]:
    """(name, what to compile) of every shipped form, for "fp32", "bf16" or "fp16" logits."""
    for C, W, K in _SHAPES:
        for tail, hard, smooth, power in _FEATURES:
            if tail in _SMALL_RULES and C not in _SMALL_RULES_CLASSES:
                continue
            problem = Problem(
                num_classes=C,
                width=W,
                logits_stride=W,
                dlogits_stride=W,
                top_k=K,
                tail=tail or "renorm",
                soft=tail is not None,
                hard=hard,
                smooth=smooth,
                weighted=True,
                scaled=hard,
                power=power,
                dtype=dtype,
            )
            config = config_for(problem, arch)
            hard_part = f" hard{'-smooth' if smooth else ''} T^{power}" if hard else ""
            soft_part = f"k{K} {tail}" if tail else "labels only,"
            name = f"{C}/{W} {soft_part}{hard_part} {config.form}"
            yield name, specialization(problem, config)
