"""kd-bench kernel: correctness, then every contestant's time, traffic and memory in one run."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch

from softlabel.tools.bench.kernel.case import Case, make_case
from softlabel.tools.bench.kernel.checks import errors
from softlabel.tools.bench.kernel.clock import METHODS, Times, take_turns
from softlabel.tools.bench.kernel.config import STANDARD_SHAPES, KernelBench
from softlabel.tools.bench.kernel.contestants import OURS, Contestant, contestants
from softlabel.tools.bench.kernel.copying import copy_bandwidth
from softlabel.tools.bench.kernel.lines import COPY
from softlabel.tools.bench.kernel.memory import UnmeasuredError, extra_bytes

_CUDA_REPEATS = 60
_CPU_REPEATS = (15, 200)
_CPU_BYTES = 1 << 28
"""Small shapes are repeated until this much has been moved: their times scatter more."""


def bench_kernel(bench: KernelBench) -> dict[str, Any]:
    """The figures of one shape, or of all standard ones under "results"."""
    if not bench.all_shapes:
        return bench_shape(bench)
    copying = None
    results = []
    for rows, classes in STANDARD_SHAPES:
        shape = replace(bench, rows=rows, classes=classes, width=None, all_shapes=False)
        results.append(bench_shape(shape, copying=copying))
        copying = results[0]["copy_gb_per_s"] * 1e9
    return {"results": results}


def bench_shape(bench: KernelBench, *, copying: float | None = None) -> dict[str, Any]:
    """One shape; `copying` is the copy bandwidth in bytes/s if it was measured before.

    Raises:
        AssertionError: a contestant computes something else.
    """
    case = make_case(bench)
    taking_part, left_out = contestants(case)
    found_errors, failed = errors(case, taking_part)
    taking_part = {name: taking_part[name] for name in found_errors}
    left_out |= failed
    extra: dict[str, int] = {}
    if not bench.memory:
        left_out["extra memory"] = "--no-memory"
    else:
        try:
            extra = extra_bytes(case, taking_part)
        except UnmeasuredError as reason:
            left_out["extra memory"] = str(reason)
    copying = copying or copy_bandwidth(case.device)
    times = _times(case, taking_part)
    rows = {
        name: _figures(times[name], taking_part[name].calls, case, copying)
        | _memory(name, extra, left_out)
        | found_errors[name]
        for name in taking_part
    }
    rows[COPY] = _figures(times[COPY], 1, case, copying)
    mine = rows[OURS]["ms"]
    return {
        **{k: v for k, v in asdict(bench).items() if k in _SHAPE},
        "width": case.pristine.shape[1],
        "device": _device_name(case.device),
        "threads": torch.get_num_threads(),
        "method": METHODS[case.device.type],
        "repeats": len(times[OURS].seconds),
        "minimal_bytes": case.minimal_bytes,
        "copy_gb_per_s": round(copying / 1e9, 1),
        "ms": {name: row["ms"] for name, row in rows.items()},
        "times_ours": {name: round(row["ms"] / mine, 2) for name, row in rows.items()},
        "contestants": rows,
        "not_measured": left_out,
    }


_SHAPE = ("rows", "classes", "top_k", "tail", "temperature", "hard", "dtype")


def _times(case: Case, taking_part: Mapping[str, Contestant]) -> dict[str, Times]:
    buffer = torch.empty_like(case.compact)
    actions = {name: contestant.run for name, contestant in taking_part.items()}
    return take_turns(
        actions | {COPY: lambda: buffer.copy_(case.compact)},
        prepare=case.restore,
        device=case.device,
        repeats=case.bench.repeats or _repeats(case),
    )


def _repeats(case: Case) -> int:
    if case.device.type == "cuda":
        return _CUDA_REPEATS
    least, most = _CPU_REPEATS
    return max(least, min(most, _CPU_BYTES // case.minimal_bytes))


def _figures(times: Times, calls: int, case: Case, copying: float) -> dict[str, float]:
    """Milliseconds a call, and what part of the copy bandwidth its minimal traffic comes to."""
    rate = case.minimal_bytes / (times.median / calls)
    return {
        "ms": round(times.median / calls * 1e3, 5),
        "ms_p20": round(times.quantile(0.2) / calls * 1e3, 5),
        "ms_p80": round(times.quantile(0.8) / calls * 1e3, 5),
        "host_ms": round(times.host_median / calls * 1e3, 5),
        "gb_per_s": round(rate / 1e9, 2),
        "share_of_copy": round(rate / copying, 4),
    }


def _memory(name: str, extra: Mapping[str, int], left_out: Mapping[str, str]) -> dict[str, Any]:
    if name not in extra or "extra memory" in left_out:
        return {"extra_mb": None}
    return {"extra_mb": round(extra[name] / 1e6, 2)}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
