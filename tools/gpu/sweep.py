"""Times candidate configurations on this GPU, for the table in kernels/sparse_kl/gpu/configs.py.

Each is checked against float64 before it is timed; all of a shape take turns, with a cold cache.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from softlabel.kernels.sparse_kl.gpu.configs import Config, candidates, config_for
from softlabel.kernels.sparse_kl.gpu.launch import problem_of, sparse_kl_grad
from softlabel.kernels.sparse_kl.targets import Targets, checked_targets
from softlabel.tools.bench.kernel.case import Case, make_case, targets
from softlabel.tools.bench.kernel.checks import check_found
from softlabel.tools.bench.kernel.clock import Times, take_turns
from softlabel.tools.bench.kernel.config import KernelBench, Tail
from softlabel.tools.bench.kernel.copying import copy_bandwidth
from softlabel.tools.gpu.step import Step, architecture, described, in_processes, parsed

_REPEATS = 100
_MOST = 12
_PROCESSES = 8
_WARM_ROWS = 64
_WARM_SHARE = 0.4
"""Of the time, at most, for compiling."""

# Rows, classes, tail; the most wanted first, each in bf16 and then fp32.
_SHAPES: tuple[tuple[int, int, Tail], ...] = (
    (4096, 21_841, "uniform"),
    (4096, 32_000, "uniform"),
    (8192, 1000, "uniform"),
    (2048, 151_936, "uniform"),
    (65_536, 100, "uniform"),
    (8192, 8192, "uniform"),
    (4096, 16_384, "uniform"),
    (4096, 21_841, "bucket"),
    (2048, 151_936, "bucket"),
    (65_536, 10, "uniform"),
    (32_768, 250, "uniform"),
    (16_384, 4096, "uniform"),
    (16_384, 2048, "uniform"),
)
_TINY_SHAPES: tuple[tuple[int, int, Tail], ...] = ((16, 20, "uniform"), (4, 300, "bucket"))


def main() -> None:
    """The step."""
    step = parsed("softlabel.tools.gpu.sweep", __doc__)
    found = sweep(step)
    step.write(found)
    for result in found["results"]:
        best = result["configs"][0]
        print(
            f"{result['name']:32} best {best['us']:9.1f} us, {best['share_of_copy']:.1%} of copy; "
            f"the table's {result['table_us'] or 'did not run'} us: {best['config']}"
        )
    print(f"sweep: {len(found['results'])} shapes, unmeasured: {found['unmeasured'] or 'none'}")


def sweep(step: Step) -> dict[str, Any]:
    """Every candidate of each shape with its time, and lines for the table."""
    benches = _benches(dry_run=step.dry_run)
    device = torch.device("cpu" if step.dry_run else "cuda")
    slow = [] if step.dry_run else _warm(benches, step)
    copying = copy_bandwidth(device, num_bytes=1 << 24 if step.dry_run else None)
    found: dict[str, Any] = {
        "dry_run": step.dry_run,
        "arch": architecture(),
        "repeats": 2 if step.dry_run else _REPEATS,
        "copy_gb_per_s": round(copying / 1e9, 1),
        "not_compiled_beforehand": slow,
        "results": [],
        "unmeasured": [],
        "table": [],
    }
    for bench in benches:
        if step.left_s <= 5:
            found["unmeasured"].append(_name(bench))
            continue
        result = _shape(bench, copying, repeats=found["repeats"])
        found["results"].append(result)
        found["table"].append(result["line"])
        step.write(found)
    return found


def _benches(*, dry_run: bool) -> list[KernelBench]:
    shape = KernelBench(hard=0.5, device="cpu" if dry_run else "cuda")
    return [
        replace(
            shape,
            rows=rows,
            classes=classes,
            tail=tail,
            top_k=4 if classes <= 16 else 16,
            dtype=dtype,
        )
        for rows, classes, tail in (_TINY_SHAPES if dry_run else _SHAPES)
        for dtype in ("bf16", "fp32")
    ]


def _name(bench: KernelBench) -> str:
    return f"{bench.rows}x{bench.classes} {bench.dtype} {bench.tail}"


def _configs(case: Case, out: Tensor) -> list[Config]:
    """The table's own first, then the candidates that are not it."""
    problem = problem_of(case.work, _checked(case), out, scaled=False)
    shipped = config_for(problem, architecture())
    others = [config for config in candidates(problem) if config != shipped]
    return [shipped, *others[:_MOST]]


def _checked(case: Case) -> Targets:
    return checked_targets(targets(case), case.work.shape, case.device)


def _run(case: Case, config: Config, out: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    given = _checked(case)

    def run() -> tuple[Tensor, Tensor]:
        losses = sparse_kl_grad(
            case.work,
            given,
            grad_scale=1 / len(case.work),
            scale_tensor=None,
            out=out,
            config=config,
        )
        return losses[0], out[:, : case.bench.classes]

    return run


def _warm(benches: list[KernelBench], step: Step) -> list[str]:
    """Compile all candidates in several processes; the shapes' names that were not done in time.

    Triton keeps its binaries on the disk, so the process that times finds them there.
    """
    jobs = {_name(bench): (bench,) for bench in benches}
    deadline = time.monotonic() + _WARM_SHARE * step.left_s
    answers = in_processes(_compile_all, jobs, processes=_PROCESSES, deadline=deadline)
    return [name for name, answer in answers if isinstance(answer, Exception)]


def _compile_all(bench: KernelBench) -> None:
    case = make_case(replace(bench, rows=_WARM_ROWS))
    out = torch.empty_like(case.work)
    for config in _configs(case, out):
        try:
            _run(case, config, out)()
        except Exception:  # the sweep itself reports it
            continue
    torch.cuda.synchronize()


def _shape(bench: KernelBench, copying: float, *, repeats: int) -> dict[str, Any]:
    case = make_case(bench)
    out = torch.empty_like(case.work)
    runs = {}
    failed = {}
    configs = _configs(case, out)
    for config in configs:
        run = _run(case, config, out)
        try:
            check_found(str(config), case, run)
        except Exception as error:
            failed[str(config)] = described(error)
        else:
            runs[str(config)] = run
    times = take_turns(runs, prepare=lambda: None, device=case.device, repeats=repeats, warmups=1)
    working = [config for config in configs if str(config) in times]
    rows = [_figures(config, times[str(config)], case, copying) for config in working]
    rows.sort(key=lambda row: float(row["us"]))
    if not rows:
        raise AssertionError(f"{_name(bench)}: no configuration works: {failed}")
    shipped = [row for row in rows if row["config"] == str(configs[0])]
    best = rows[0]
    return {
        "name": _name(bench),
        "width": case.work.shape[1],
        "dtype": bench.dtype,
        "table_us": shipped[0]["us"] if shipped else None,
        "line": f"({case.work.shape[1]}, {bench.dtype!r}, {best['config']}),"
        f"  # {best['us']} us, {best['share_of_copy']:.1%} of copy, {bench.tail}",
        "configs": rows,
        "failed": failed,
    }


def _figures(config: Config, times: Times, case: Case, copying: float) -> dict[str, Any]:
    return {
        "config": str(config),
        "fields": asdict(config),
        "us": round(times.median * 1e6, 2),
        "us_p20": round(times.quantile(0.2) * 1e6, 2),
        "us_p80": round(times.quantile(0.8) * 1e6, 2),
        "share_of_copy": round(case.minimal_bytes / times.median / copying, 4),
    }


if __name__ == "__main__":
    main()
