"""docs/results.md and report.html, both made of the summaries alone."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from softlabel.tools.experiments.claims import Bound, shown, shown_bound
from softlabel.tools.experiments.intervals import Spread
from softlabel.tools.experiments.reasons import REASONS
from softlabel.tools.experiments.registry import EXPERIMENTS
from softlabel.tools.experiments.summary import Part, Summary
from softlabel.tools.report import page
from softlabel.tools.report.measured import interval_bars, step_curves
from softlabel.tools.report.page import Markup

_INTRODUCTION = (
    "Written by `make experiments` (digits, MNIST) and `make experiments-full` (CIFAR-10 too); "
    "run it again instead of editing. Each figure is a mean over seeds with its 95 % interval "
    "(Student's t), of students trained by kd-train on labels of kd-label and judged by kd-eval on "
    "test images that nobody was trained on. Bounds were fixed before, on digits: there a claim is "
    "reproduced or not; elsewhere it is reported whether the same bound holds. Verdicts look at "
    "the mean; where the bound lies within the interval, so that seeds like these could have said "
    "the opposite, it is marked. What has no interval is of one teacher and one pool."
)
_NEAR = "bound within the interval"
_CLAIM_HEAD = ("claim", "source", "measured", "bound", "verdict")


def claim_rows(summary: Summary) -> list[tuple[str, ...]]:
    """A row a claim: what it says, source, figure, bound, verdict and reason."""
    rows: list[tuple[str, ...]] = []
    for part in summary.parts.values():
        for claim in part.findings["claims"]:
            bound = None if claim["bound"] is None else Bound(**claim["bound"])
            reason = REASONS.get(f"{summary.data}/{claim['name']}", "")
            verdict = claim["verdict"] + (f" ({_NEAR})" if near(claim) else "")
            verdict = f"{verdict}. {reason}" if reason else verdict
            rows.append(
                (
                    claim["says"],
                    claim["source"],
                    shown(Spread(**claim["figure"]), claim["unit"]),
                    shown_bound(bound, claim["unit"]),
                    verdict,
                )
            )
    return rows


def near(claim: Mapping[str, Any]) -> bool:
    """Whether the bound lies within the figure's interval: the seeds do not settle the verdict."""
    figure, bound = claim["figure"], claim["bound"]
    if bound is None or figure["half"] is None:
        return False
    return bool(abs(figure["mean"] - bound["value"]) <= figure["half"])


def counts(summary: Summary) -> str:
    """How many claims came out how, and what is missing."""
    claims = [claim for part in summary.parts.values() for claim in part.findings["claims"]]
    verdicts = [claim["verdict"] for claim in claims]
    kinds = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(sorted(verdicts))}
    missing = len(missing_lines(summary))
    said = [f"{count} {verdict}" for verdict, count in kinds.items()]
    if unsettled := sum(map(near, claims)):
        said.append(f"{unsettled} of these with the {_NEAR}")
    return ", ".join([*said, f"{missing} skipped or failed"] if missing else said)


def missing_lines(summary: Summary) -> list[str]:
    """What could not be had, and what failed."""
    lines = []
    for name, part in summary.parts.items():
        lines += [f"{name}: skipped: {line}" for line in part.skipped]
        lines += [f"{name}: failed: {line}" for line in part.failed]
        lines += [f"{name}: not judged: {line}" for line in part.findings["left_out"]]
    return lines


def circumstances(part: Part) -> str:
    """When, where and how long."""
    machine = part.machine
    versions = ", ".join(
        f"{name} {machine[name]}"
        for name in ("softlabel", "torch", "onnxruntime-gpu", "onnxruntime", "numpy")
        if name in machine
    )
    trial = "" if part.scale == 1 else f" TRIAL with {part.scale:g} of the steps."
    return (
        f"{part.date}, {part.students} students of {part.seeds} seed(s), "
        f"{part.seconds / 60:.1f} minutes of one core; {machine.get('cpu', 'unknown processor')}, "
        f"{machine.get('cores')} cores, Python {machine.get('python')}, {versions}.{trial}"
    )


def markdown(summaries: Sequence[Summary]) -> str:
    """docs/results.md."""
    return "\n".join(_markdown_lines(summaries)) + "\n"


def _markdown_lines(summaries: Sequence[Summary]) -> Iterator[str]:
    yield from ("# Results", "", _INTRODUCTION, "")
    for summary in summaries:
        yield from (f"## {summary.title}", "", f"{_sentence(counts(summary))}.", "")
        yield from _markdown_table(_CLAIM_HEAD, claim_rows(summary))
        if lines := missing_lines(summary):
            yield from ("", "Missing:", "", *(f"- {_cell(line)}" for line in lines))
        for name, part in summary.parts.items():
            yield from ("", f"### {summary.title}: {_title(name).lower()}", "", circumstances(part))
            for table in part.findings["tables"]:
                yield from ("", f"{table['title']}:", "")
                yield from _markdown_table(table["head"], table["rows"])
                if table["note"]:
                    yield from ("", table["note"])
        yield ""


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(map(_cell, head)) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(map(_cell, row)) + " |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] if text else "No claims"


def _title(name: str) -> str:
    return EXPERIMENTS[name].title if name in EXPERIMENTS else name  # type: ignore[index]


def report(summaries: Sequence[Summary]) -> str:
    """report.html, in one file."""
    sections = [part for summary in summaries for part in _sections(summary)]
    subtitle = "Claims about students of stored labels, and what came of them"
    return page.page("softlabel: experiments", *sections, subtitle=subtitle)


def _sections(summary: Summary) -> Iterator[Markup]:
    claims = claim_rows(summary)
    # Sentences would make the table wider than any window: they follow it.
    short = [(number, *row[2:4], row[4].partition(".")[0]) for number, row in enumerate(claims, 1)]
    sentences = [
        f"{number}: {row[0]} ({row[1]}) {row[4].partition('. ')[2]}"
        for number, row in enumerate(claims, 1)
    ]
    overview = [
        page.paragraph(f"{_sentence(counts(summary))}."),
        page.table(("claim", *_CLAIM_HEAD[2:]), short),
        page.bullets(sentences),
    ]
    if lines := missing_lines(summary):
        overview += [page.paragraph("Missing:"), page.bullets(lines)]
    yield page.section(summary.title, *overview)
    for name, part in summary.parts.items():
        drawings = [*_drawings(part.findings)]
        tables = [
            piece
            for table in part.findings["tables"]
            for piece in (
                page.paragraph(table["title"] + (f". {table['note']}" if table["note"] else "")),
                page.table(table["head"], table["rows"]),
            )
        ]
        told = page.paragraph(circumstances(part))
        yield page.section(f"{summary.title}: {_title(name).lower()}", *drawings, *tables, told)


def _drawings(findings: Mapping[str, Any]) -> Iterator[Markup]:
    for lines in findings["curves"]:
        series = {name: (x, y) for name, (x, y) in lines["series"].items()}
        if series:
            drawing = step_curves(series, label=lines["label"])
            yield page.figure(drawing, f"{lines['title']}; mean over seeds.")
    for bars in findings["bars"]:
        found = {name: Spread(**value) for name, value in bars["bars"].items()}
        if found:
            drawing = interval_bars(
                {name: (value.mean, value.half or 0.0) for name, value in found.items()},
                label=bars["label"],
                percent=bars["unit"] == "share",
            )
            yield page.figure(drawing, f"{bars['title']}; bars are means, lines 95 % intervals.")
