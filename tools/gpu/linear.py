"""kd-bench kernel --linear on a GPU: last layer and loss in one, three shapes in bfloat16."""

import gc
from dataclasses import replace
from typing import Any

import torch

from softlabel.tools.bench.kernel.config import LINEAR_SHAPES, KernelBench
from softlabel.tools.bench.kernel.linear import bench_linear_shape
from softlabel.tools.bench.kernel.lines import lines
from softlabel.tools.bench.machine import machine
from softlabel.tools.gpu.step import Step, parsed


def main() -> None:
    """The step."""
    step = parsed("softlabel.tools.gpu.linear", __doc__)
    found = linear(step)
    step.write(found)
    print(*lines(found), sep="\n")


def linear(step: Step) -> dict[str, Any]:
    """All results; what did not fit into the time is named under "unmeasured"."""
    found: dict[str, Any] = {"machine": machine(), "results": [], "unmeasured": []}
    shapes = ((8, 16, 300),) if step.dry_run else LINEAR_SHAPES
    bench = KernelBench(
        dtype="bf16",
        device="cpu" if step.dry_run else "cuda",
        repeats=2 if step.dry_run else None,
        memory=not step.dry_run,
    )
    for rows, features, classes in shapes:
        if step.left_s < 5:
            found["unmeasured"].append(f"{rows}x{features}x{classes}")
            continue
        shape = replace(bench, rows=rows, features=features, classes=classes)
        found["results"].append(bench_linear_shape(shape))
        step.write(found)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return found


if __name__ == "__main__":
    main()
