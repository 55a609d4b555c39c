"""What an experiment finds: claims with their verdicts, tables and charts, all of it JSON."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from softlabel.tools.experiments.intervals import Spread
from softlabel.tools.experiments.results import MissingError

Unit = Literal["share", "points", "ratio", "number"]
"""share: printed as per cent; points: a difference of shares, in percentage points."""

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What the figure's mean must be for the claim to hold; fixed before anything was measured."""

    relation: Literal[">=", "<=", ">", "<"]
    value: float

    def holds(self, value: float) -> bool:
        """Whether a figure keeps it; nothing that is not a number does."""
        match self.relation:
            case ">=":
                return value >= self.value
            case "<=":
                return value <= self.value
            case ">":
                return value > self.value
            case "<":
                return value < self.value


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence somebody published, or the measurement before this one, and our figure for it."""

    name: str
    says: str
    source: str
    figure: Spread
    unit: Unit
    bound: Bound | None
    """None: there is nothing to hold, the figure is reported."""
    binding: bool
    """Whether the bound was set for this data set; elsewhere it is only compared with."""

    @property
    def verdict(self) -> str:
        """reproduced, not reproduced, or reported (with what the bound would have said)."""
        if self.bound is None:
            return "reported"
        holds = self.bound.holds(self.figure.mean)
        if self.binding:
            return REPRODUCED if holds else NOT_REPRODUCED
        return "reported: holds here" if holds else "reported: does not hold here"

    def to_dict(self) -> dict[str, Any]:
        """As JSON, the verdict with it."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of figures."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Lines over steps: name to steps and values."""

    title: str
    label: str
    series: dict[str, tuple[list[float], list[float]]]


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Means with intervals."""

    title: str
    label: str
    unit: Unit
    bars: dict[str, Spread]


@dataclass(kw_only=True)
class Findings:
    """All that an experiment says of a data set."""

    claims: list[Claim] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)
    bars: list[Bars] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """Claims that could not be judged, with the result that was missing."""

    def claim(self, name: str, make: Callable[[], Claim]) -> None:
        """Add a claim, or say that it could not be judged."""
        try:
            self.claims.append(make())
        except MissingError as error:
            self.left_out.append(f"{name}: no result of {error}")

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "claims": [claim.to_dict() for claim in self.claims],
            "tables": [asdict(table) for table in self.tables],
            "curves": [asdict(curves) for curves in self.curves],
            "bars": [asdict(bars) for bars in self.bars],
            "left_out": self.left_out,
        }


def shown(value: Spread, unit: Unit) -> str:
    """A mean with its interval, as it is printed."""
    scale, digits, end = {
        "share": (100, 1, " %"),
        "points": (100, 1, " pt"),
        "ratio": (1, 2, "x"),
        "number": (1, 3, ""),
    }[unit]
    mean = f"{value.mean * scale:.{digits}f}"
    half = "" if value.half is None else f" ± {value.half * scale:.{digits}f}"
    return mean + half + end


def shown_bound(bound: Bound | None, unit: Unit) -> str:
    """A bound as it is printed."""
    if bound is None:
        return "none"
    scale, end = {
        "share": (100, " %"), "points": (100, " pt"), "ratio": (1, "x"), "number": (1, "")
    }[unit]  # fmt: skip
    return f"{bound.relation} {bound.value * scale:g}{end}"
