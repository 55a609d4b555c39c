"""kd-bench kernel on a GPU: five shapes, two dtypes, two losses, every peer."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from softlabel.tools.bench.kernel.bench import bench_shape
from softlabel.tools.bench.kernel.config import STANDARD_SHAPES, DType, KernelBench
from softlabel.tools.bench.kernel.lines import lines
from softlabel.tools.bench.kernel.plot import plot
from softlabel.tools.bench.machine import machine
from softlabel.tools.gpu.step import Step, parsed

_COMPILE_S = 25
"""With less time than this left, torch.compile is left out of a shape."""


def main() -> None:
    """The step."""
    step = parsed("softlabel.tools.gpu.benchmark", __doc__)
    found = benchmark(step)
    step.write(found)
    print(*lines(found), sep="\n")
    if found["results"] and not step.dry_run:
        try:
            plot({"results": found["results"][:5]}, found["machine"], step.out.with_suffix(".png"))
        except ImportError as reason:
            print(f"not drawn: {reason}")


def benches(*, dry_run: bool) -> Iterator[KernelBench]:
    """What is measured, the most wanted first."""
    shapes = ((16, 30), (4, 300)) if dry_run else STANDARD_SHAPES
    base = KernelBench(
        device="cpu" if dry_run else "cuda",
        repeats=2 if dry_run else None,
        compile=not dry_run,
        memory=not dry_run,
    )
    dtypes: tuple[DType, ...] = ("bf16", "fp32")
    for dtype in dtypes:
        for rows, classes in shapes:
            shape = replace(base, rows=rows, classes=classes, dtype=dtype)
            yield replace(shape, tail="uniform", hard=0.5)
        for rows, classes in shapes:
            shape = replace(base, rows=rows, classes=classes, dtype=dtype)
            yield replace(shape, tail="renorm", temperature=4.0)


def benchmark(step: Step) -> dict[str, Any]:
    """All results; what did not fit into the time is named under "unmeasured"."""
    found: dict[str, Any] = {"machine": machine(), "results": [], "unmeasured": []}
    copying = None
    for bench in benches(dry_run=step.dry_run):
        if step.left_s < 5:
            found["unmeasured"].append(f"{bench.rows}x{bench.classes} {bench.dtype} {bench.tail}")
            continue
        if step.left_s < _COMPILE_S:
            bench = replace(bench, compile=False)
        result = bench_shape(bench, copying=copying)
        copying = result["copy_gb_per_s"] * 1e9
        found["results"].append(result)
        step.write(found)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return found


if __name__ == "__main__":
    main()
