"""Every shipped configuration through this machine's own triton: registers, spills, fp64.

Needs the compiler, so TRITON_INTERPRET must not be set, and no GPU.
"""

import os
from itertools import islice
from typing import Any

from softlabel.tools.gpu.step import Step, architecture, described, in_processes, parsed

_DTYPES = ("bf16", "fp32", "fp16")
_DRY_VARIANTS = 2


def main() -> None:
    """The step."""
    step = parsed("softlabel.tools.gpu.spills", __doc__)
    found = spills(step)
    step.write(found)
    for name in found["spilling"]:
        print(f"SPILLS {name}: {found['variants'][name]}")
    for name, reason in found["failed"].items():
        print(f"FAILED {name}: {reason}")
    print(
        f"spills: {len(found['variants'])} variants for sm_{found['arch']}, triton "
        f"{found['triton']}: {len(found['spilling'])} spill or use fp64, "
        f"{len(found['failed'])} failed to compile, {len(found['unmeasured'])} unmeasured"
    )


def spills(step: Step) -> dict[str, Any]:
    """What the machine code of each variant holds, and which should not be shipped."""
    import triton

    arch = architecture()
    variants: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    unmeasured = []
    jobs = {
        f"{dtype} {name}": (arch, dtype, number)
        for dtype in _DTYPES[: 1 if step.dry_run else None]
        for number, name in enumerate(_names(arch, dtype, dry_run=step.dry_run))
    }
    answers = in_processes(
        _compiled, jobs, processes=min(12, os.cpu_count() or 1), deadline=step.deadline
    )
    for name, answer in answers:
        if isinstance(answer, TimeoutError):
            unmeasured.append(name)
        elif isinstance(answer, Exception):
            failed[name] = described(answer)
        else:
            variants[name] = answer
    return {
        "dry_run": step.dry_run,
        "arch": arch,
        "triton": triton.__version__,
        "spilling": [name for name, report in variants.items() if _bad(report)],
        "failed": failed,
        "unmeasured": unmeasured,
        "variants": variants,
    }


def _bad(report: dict[str, Any]) -> bool:
    return any(report[name] for name in ("spill_stores", "spill_loads", "stack", "local", "fp64"))


def _names(arch: int, dtype: str, *, dry_run: bool) -> list[str]:
    from softlabel.kernels.sparse_kl.gpu.variants import shipped_variants

    variants = shipped_variants(arch, dtype)
    return [name for name, _ in islice(variants, _DRY_VARIANTS if dry_run else None)]


def _compiled(arch: int, dtype: str, number: int) -> dict[str, Any]:
    """The report of one variant; it is found again by number, for functions do not travel."""
    from softlabel.kernels.sparse_kl.gpu.variants import shipped_variants
    from softlabel.tools.compile_gate.compile import compile_one

    _, spec = next(islice(shipped_variants(arch, dtype), number, None))
    return dict(vars(compile_one(spec, arch)))


if __name__ == "__main__":
    main()
