"""What is wrong with each compiled variant, and how that is told."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from softlabel.tools.bench.machine import machine
from softlabel.tools.compile_gate import table
from softlabel.tools.compile_gate.pool import Outcome, Variant
from softlabel.tools.compile_gate.rules import complaints

TRITON = version("triton")
Known = Mapping[tuple[str, str, str], table.Row]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A variant, what it compiled to, and all that is wrong with that."""

    variant: Variant
    outcome: Outcome
    wrong: tuple[str, ...]

    @property
    def row(self) -> table.Row | None:
        """Its line of the table; none if it did not compile."""
        if isinstance(self.outcome, str):
            return None
        v = self.variant
        return table.row(TRITON, v.arch, v.dtype, v.name, self.outcome)


def comparable(path: Path) -> tuple[Known | None, str]:
    """The table if it is of this triton, else none; and what to say about it."""
    known = table.read(path)
    versions = {row.triton for row in known.values()}
    if versions == {TRITON}:
        return known, f"triton {TRITON}, compared with {path.name}"
    other = f"is of triton {', '.join(sorted(versions))}" if versions else "does not exist"
    return None, f"triton {TRITON}; registers NOT compared: {path.name} {other}"


def judged(variant: Variant, outcome: Outcome, known: Known | None) -> Finding:
    """With `known` None nothing is compared; the rules hold all the same."""
    if isinstance(outcome, str):
        return Finding(variant=variant, outcome=outcome, wrong=(outcome,))
    finding = Finding(
        variant=variant, outcome=outcome, wrong=tuple(complaints(variant.spec, outcome))
    )
    row = finding.row
    if known is None or row is None:
        return finding
    wrong = (*finding.wrong, *table.differences(row, known))
    return Finding(variant=variant, outcome=outcome, wrong=wrong)


def no_longer_shipped(findings: Sequence[Finding], known: Known) -> list[str]:
    """Lines of the table that nothing compiles to any more."""
    shipped = {(f"sm_{f.variant.arch}", f.variant.dtype, f.variant.name) for f in findings}
    return [f"{' '.join(key)}: in the table, no longer shipped" for key in known.keys() - shipped]


_HEAD = ("regs", "spill", "shared", "ld128", "st128", "ex2", "s")


def head(width: int) -> str:
    """The title line for names of up to `width` characters."""
    return f"{'variant':{width + 12}}" + "".join(f"{name:>7}" for name in _HEAD)


def line(finding: Finding, width: int) -> str:
    """A finding as people read it."""
    v = finding.variant
    said = f"sm_{v.arch:<3} {v.dtype:4} {v.name:{width}}"
    row = finding.row
    if row is not None and not isinstance(finding.outcome, str):
        figures = (row.registers, row.spills, row.shared, row.ld128, row.st128, row.ex2)
        said += "".join(f"{figure:7}" for figure in figures) + f"{finding.outcome.seconds:7.2f}"
    return said + "".join(f"\n    FAILED {wrong}" for wrong in finding.wrong)


def as_json(findings: Sequence[Finding], seconds: float) -> dict[str, object]:
    """All that was found, with its machine."""
    return {
        "machine": machine(),
        "triton": TRITON,
        "seconds": round(seconds, 1),
        "variants": [
            {
                "arch": f"sm_{f.variant.arch}",
                "dtype": f.variant.dtype,
                "variant": f.variant.name,
                "wrong": f.wrong,
                **({} if isinstance(f.outcome, str) else asdict(f.outcome)),
            }
            for f in findings
        ],
    }
