"""evaluation.md: the figures as Markdown tables, to paste into a page or a review."""

from collections.abc import Iterator, Sequence

from softlabel.tools.evaluate import embeddings
from softlabel.tools.evaluate.bootstrap import RESAMPLES
from softlabel.tools.evaluate.evaluation import Evaluation
from softlabel.tools.evaluate.groups import groups
from softlabel.tools.evaluate.rows import columns, summary


def markdown(evaluation: Evaluation) -> str:
    """The whole document."""
    return "\n".join(_lines(evaluation)) + "\n"


def _lines(evaluation: Evaluation) -> Iterator[str]:
    manifest = evaluation.labelled.store.manifest
    yield f"# {_plain(evaluation.models[0].described.name)} against its teacher"
    yield ""
    yield f"{summary(evaluation)}, from {RESAMPLES:,} resamples{_fewer(evaluation)}."
    for group in groups(evaluation):
        yield from ("", f"## {group.title}", "")
        if group.detail:
            yield from (f"{_plain(group.detail)}.", "")
        head = ["figure", "n", *columns(evaluation)]
        yield from _table(head, [[r.title, f"{r.n:,}", *r.cells] for r in group.rows])
    yield from ("", "## Models", "")
    rows = [
        [m.role, m.described.name, f"{m.num_parameters:,}", str(m.folder)]
        for m in evaluation.models
    ]
    rows.append(["teacher", f"sha256 {manifest.teacher_sha256[:12]}", "", ""])
    yield from _table(["role", "name", "parameters", "folder"], rows)
    if evaluation.notes:
        yield from ("", "## Notes", "")
        yield from (f"- {_plain(note)}" for note in evaluation.notes)
    yield from ("", "## What the figures mean", "")
    for group in groups(evaluation):
        yield from (f"- {_plain(title)}: {_plain(said)}" for title, said in group.meanings)


def _fewer(evaluation: Evaluation) -> str:
    """Which figures have other resamples."""
    if not any("cka" in own or "cosine_correlation" in own for own in evaluation.figures.values()):
        return ""
    return (
        f"; those of CKA and of the correlation of cosines from {embeddings.RESAMPLES:,}, of at "
        f"most {embeddings.KEPT:,} images"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield _row(head)
    yield _row(["---", *("---:" for _ in head[1:])])
    yield from (_row(row) for row in rows)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_plain, cells)) + " |"


def _plain(text: str) -> str:
    """Text that is no Markdown and no HTML, in one line."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    for c in "\\`*_|<>#":
        shown = shown.replace(c, f"\\{c}")
    return shown
