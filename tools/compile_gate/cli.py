"""The flags of the gate, its table on the screen, its verdict."""

import importlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from softlabel.shards import commandline
from softlabel.shards.errors import UsageError

if TYPE_CHECKING:
    from softlabel.tools.compile_gate.pool import Variant

DESCRIPTION = """Compile every shipped Triton configuration for three architectures, without a GPU.

Exit code 1 if one spills, uses the stack or fp64, moves aligned rows in narrow accesses, or takes
other registers than the table says.

Examples:
  python -m softlabel.tools.compile_gate
  python -m softlabel.tools.compile_gate --arch 90 --dtype bf16 --only bucket
  python -m softlabel.tools.compile_gate --write"""

ARCHS = (80, 90, 100)
DTYPES = ("bf16", "fp16", "fp32")
_NUM_FAST = 10


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The flags of the gate."""

    arch: tuple[int, ...] = ARCHS
    """Architectures, 90 for sm_90."""
    dtype: tuple[str, ...] = DTYPES
    """Logits: bf16, fp16, fp32."""
    only: str = ""
    """Only variants whose name holds this."""
    fast: bool = False
    """Only ten variants, evenly out of all."""
    write: bool = False
    """Replace the table by what is found, if nothing else is wrong."""
    json: Path | None = None
    """Also write all that was found here."""
    cached: Path | None = None
    """Take compiled code from this folder, and leave it there; times then mean nothing."""
    jobs: int = 2
    """Processes."""
    variants: str = "softlabel.kernels.sparse_kl.gpu.variants:shipped_variants"
    """MODULE:FUNCTION that yields (name, specialization) for an architecture and a dtype."""
    table: Path = Path(__file__).resolve().parents[2] / "kernels/sparse_kl/gpu/registers.csv"
    """The table of registers."""

    def __post_init__(self) -> None:
        if self.write and not self.everything:
            raise ValueError("--write: not with --arch, --dtype, --only or --fast")
        if unknown := set(self.dtype) - set(DTYPES):
            raise ValueError(f"--dtype: wanted {', '.join(DTYPES)}, found {', '.join(unknown)}")
        if self.jobs < 1:
            raise ValueError(f"--jobs: wanted at least 1, found {self.jobs}")

    @property
    def everything(self) -> bool:
        """Whether no variant is left out."""
        return (
            set(self.arch) >= set(ARCHS)
            and set(self.dtype) >= set(DTYPES)
            and not self.only
            and not self.fast
        )


def run(config: GateConfig) -> int:
    """Compile, judge, print; 1 if anything failed."""
    start = time.perf_counter()
    variants = list(_variants(config))
    if not variants:
        raise UsageError(f"--only {config.only}: no variant's name holds that")
    from softlabel.tools.compile_gate import pool, table, verdict

    known, remark = verdict.comparable(config.table)
    if config.write:
        known, remark = None, f"to be written: {config.table.name}"
    width = max(len(variant.name) for variant in variants)
    print(remark, verdict.head(width), sep="\n", flush=True)
    findings = []
    with _cache(config.cached):
        for variant, outcome in pool.compile_all(variants, jobs=config.jobs):
            findings.append(verdict.judged(variant, outcome, known))
            print(verdict.line(findings[-1], width), flush=True)
    gone = verdict.no_longer_shipped(findings, known) if known and config.everything else []
    print(*(f"FAILED {line}\n" for line in gone), sep="", end="")
    num_failed = sum(bool(finding.wrong) for finding in findings) + len(gone)
    seconds = time.perf_counter() - start
    if config.json is not None:
        config.json.write_text(json.dumps(verdict.as_json(findings, seconds), indent=1) + "\n")
    if config.write and not num_failed:
        table.write(config.table, [finding.row for finding in findings if finding.row])
    print(f"{len(variants)} variants, {num_failed} failed, {seconds:.0f} s")
    return int(num_failed > 0)


def _variants(config: GateConfig) -> Iterator["Variant"]:
    """Those that were asked for, of all that are shipped."""
    from softlabel.tools.compile_gate.pool import Variant

    module, _, function = config.variants.partition(":")
    shipped = getattr(importlib.import_module(module), function)
    found = [
        Variant(arch=arch, dtype=dtype, name=name, spec=spec)
        for arch in config.arch
        for dtype in config.dtype
        for name, spec in shipped(arch, dtype)
        if config.only in name
    ]
    if config.fast:
        number = min(_NUM_FAST, len(found))
        found = [found[i * len(found) // number] for i in range(number)]
    yield from found


@contextmanager
def _cache(folder: Path | None) -> Iterator[None]:
    """Triton's cache, for this run alone unless a folder is named: times are of compilation."""
    before = os.environ.get("TRITON_CACHE_DIR")
    with tempfile.TemporaryDirectory(prefix="compile-gate-") as fresh:
        os.environ["TRITON_CACHE_DIR"] = str(folder or fresh)
        try:
            yield
        finally:
            del os.environ["TRITON_CACHE_DIR"]
            if before is not None:
                os.environ["TRITON_CACHE_DIR"] = before


def main() -> NoReturn:
    """The command."""
    os.environ.pop("TRITON_INTERPRET", None)  # it would leave nothing to compile
    prog = "python -m softlabel.tools.compile_gate"
    commandline.main(prog, DESCRIPTION, GateConfig, run)
