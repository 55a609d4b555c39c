"""The statistics of a store as a page to read: figures, warnings, histograms, pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from softlabel.shards import durable
from softlabel.shards.errors import MachineError, UsageError
from softlabel.shards.store import Store
from softlabel.tools.report.contact_sheet import contact_sheet
from softlabel.tools.report.distributions import COLOURS, MOST_SERIES, bars, step_histograms
from softlabel.tools.report.page import (
    Markup,
    bullets,
    facts,
    figure,
    folded,
    page,
    paragraph,
    section,
    side_by_side,
    table,
    tiles,
)
from softlabel.tools.stats.collect import Collection
from softlabel.tools.stats.findings import NOTES, label_warnings, tail_temperature
from softlabel.tools.stats.lines import cells
from softlabel.tools.stats.pictures import thumbnails
from softlabel.tools.stats.source import QUANTILES, LabelFigures, SourceStatistics
from softlabel.tools.stats.values import base_temperature, measures
from softlabel.tools.store_stats import class_name

_MOST_DRAWN = 12
"""Sources with bars and pictures of their own, the largest; the table has all."""

_MOST_ROWS = 1000
"""Rows of a table."""

Names = Callable[[int], str]


def refuse_unwritable(path: Path) -> None:
    """UsageError if a page can't go there: known before a long pass over the store."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--html {path}: wanted a file in a folder that exists")


def write_page(
    store: Store, collection: Collection, *, urls: Mapping[int, str], path: Path
) -> None:
    """Write the page, whole; MachineError if that fails, IdentityError for a tar packed anew."""
    document = stats_page(store, collection, urls=urls)
    try:
        durable.replace_all({path: document.encode()})
    except OSError as error:
        raise MachineError(f"--html {path}: can't be written: {error.strerror}") from error


def stats_page(store: Store, collection: Collection, *, urls: Mapping[int, str]) -> str:
    """The whole page."""
    named = partial(class_name, store)
    manifest = collection.manifest
    subtitle = (
        f"{store.path}, id {store.store_id[:12]}; teacher {manifest.teacher_sha256[:12]}, top "
        f"{manifest.top_k} of {manifest.num_classes} classes"
    )
    if not collection.whole.labels:
        said = section(
            "Summary", paragraph("No image is labelled yet."), *_warnings(collection, named)
        )
        return page("What the labels say", said, subtitle=subtitle)
    return page(
        "What the labels say",
        section("Summary", _tiles(collection), *_warnings(collection, named)),
        section("Sources", *_sources(collection, named)),
        section("Distributions", *_distributions(collection)),
        section("Classes", *_classes(collection, named)),
        *_pictures(store, collection, urls, named),
        section("Tars", _tars(collection, named)),
        section("What the figures mean", _meaning(collection)),
        subtitle=subtitle,
    )


def _tiles(collection: Collection) -> Markup:
    whole = collection.whole
    manifest = collection.manifest
    temperature = tail_temperature(collection.manifest.temperatures)
    views = f", {manifest.views} views each" if manifest.views > 1 else ""
    found: list[tuple[object, object, object]] = [
        (f"{whole.labelled:,}", f"labelled images{views}", f"{whole.bad:,} could not be labelled"),
        (f"{len(collection.sources):,}", "sources", f"in {len(collection.tars):,} tars"),
        (
            f"{whole.effective_classes:.1f}",
            "effective classes",
            f"of {manifest.num_classes}, all sources together",
        ),
        (
            f"{whole.saturated_share:.1%}",
            "nearly hard labels",
            f"p1 > 0.999; the mean p1 is {whole.mean('p1'):.3f}",
        ),
        (
            f"{whole.mean(f'tail at {temperature:g}'):.1%}",
            "mean tail",
            f"outside the top {manifest.top_k}, at T = {temperature:g}",
        ),
        (f"{whole.duplicates:,}", "exact duplicates", f"{whole.duplicate_share:.1%} of images"),
    ]
    return tiles(found)


def _warnings(collection: Collection, named: Names) -> Iterator[Markup]:
    found = label_warnings(collection, class_name=named)
    yield bullets([f"Warning: {warning}." for warning in found] or ["No warnings."])


def _sources(collection: Collection, named: Names) -> Iterator[Markup]:
    head, *rows = cells(collection, named)
    yield table(head, rows[:_MOST_ROWS])
    if len(rows) > _MOST_ROWS:
        yield paragraph(f"{len(rows) - _MOST_ROWS:,} more sources are in --json.")
    yield paragraph(
        "The most effective classes first. Copies equal an earlier image of the same source, "
        "elsewhere counts images that another source has too, bad ones could not be labelled."
    )
    yield bullets([f"{note[0].upper()}{note[1:]}." for note in NOTES])


def _largest(collection: Collection, count: int) -> list[SourceStatistics]:
    """The sources with the most labelled images, in the page's order."""
    filled = [source for source in collection.sources if source.labelled]
    chosen = sorted(filled, key=lambda source: -source.labelled)[:count]
    return [source for source in filled if source in chosen]


def _distributions(collection: Collection) -> Iterator[Markup]:
    names = measures(collection.manifest)
    sources = _largest(collection, MOST_SERIES)
    tail = f"tail at {tail_temperature(collection.manifest.temperatures):g}"
    wanted = [("p1", "p1", True), ("entropy", "entropy, nats", False), ("energy", "energy", False)]
    if collection.manifest.num_classes > collection.manifest.top_k:
        wanted.append((tail, f"tail mass at T = {tail.removeprefix('tail at ')}", True))
    drawings = []
    for name, label, percent in wanted:
        values = {source.name: source.sample[:, names.index(name)] for source in sources}
        span = (0.0, 1.0) if percent else None
        drawings.append(step_histograms(values, label=label, percent=percent, span=span))
    for start in range(0, len(drawings), 2):
        yield side_by_side(drawings[start : start + 2])
    yield paragraph("The height is drawn as its square root, so that small shares show.")
    if len(sources) < len(collection.sources):
        yield paragraph(f"The {len(sources)} largest of {len(collection.sources):,} sources.")
    if not all(source.quantiles_exact for source in collection.sources):
        yield paragraph(
            "Histograms and quantiles of the largest sources are of a sample: the images with the "
            "smallest key hashes. Means and counts are of all images."
        )
    yield folded("Quantiles of these sources", _quantiles(sources))


def _quantiles(sources: Sequence[SourceStatistics]) -> Markup:
    head = ["source", "of", "mean", *(f"{q:.0%}" for q in QUANTILES)]
    rows = []
    for source in sources:
        for name, found in source.distributions.items():
            values = (found.mean, *found.quantiles)
            rows.append([source.name, name, *(f"{value:.4g}" for value in values)])
    return table(head, rows)


def _classes(collection: Collection, named: Names) -> Iterator[Markup]:
    drawings = []
    for number, source in enumerate(_largest(collection, _MOST_DRAWN)):
        pairs = [(named(c), count / source.labelled) for c, count in source.most_frequent]
        title = f"{source.name}: {source.effective_classes:.1f} effective classes"
        drawing = bars(
            [name for name, _ in pairs],
            [share for _, share in pairs],
            label="share of images",
            title=source.name,
            colour=COLOURS[number % MOST_SERIES],
        )
        drawings.append(figure(drawing, title))
    drawings += [Markup("")] * (-len(drawings) % 3)  # so that all are equally wide
    for start in range(0, len(drawings), 3):
        yield side_by_side(drawings[start : start + 3])
    yield paragraph("The ten most frequent first classes of each source.")


def _pictures(
    store: Store, collection: Collection, urls: Mapping[int, str], named: Names
) -> Iterator[Markup]:
    parts: list[Markup] = []
    for source in _largest(collection, _MOST_DRAWN):
        for what, picks in (
            ("most", source.extremes.most),
            ("least", source.extremes.least),
        ):
            if shown := thumbnails(store, picks, urls, class_name=named):
                parts.append(paragraph(f"{source.name}: {what} confident"))
                parts.append(contact_sheet(shown))
    if parts:
        yield section("Most and least confident images", *parts)


def _tars(collection: Collection, named: Names) -> Markup:
    head = ["tar", "images", "classes", "p1", "entropy", "p1>.999", "copies", "bad"]
    head.append("most frequent")
    rows = [_tar(tar, named) for tar in collection.tars[:_MOST_ROWS]]
    more = len(collection.tars) - len(rows)
    summary = f"The first {len(rows):,} tars; {more:,} more are in --json" if more > 0 else "By tar"
    return folded(summary, table(head, rows))


def _tar(tar: LabelFigures, named: Names) -> Sequence[str]:
    frequent = "-"
    if tar.most_frequent:
        number, count = tar.most_frequent[0]
        frequent = f"{named(number)} {count / tar.labelled:.0%}"
    means = [tar.mean(name) for name in ("p1", "entropy")]
    return [
        tar.name,
        f"{tar.labelled:,}",
        f"{tar.effective_classes:.1f}",
        *("-" if mean is None else f"{mean:.3f}" for mean in means),
        f"{tar.saturated_share:.1%}" if tar.labels else "-",
        f"{tar.duplicates:,}",
        f"{tar.bad:,}",
        frequent,
    ]


def _meaning(collection: Collection) -> Markup:
    base = base_temperature(collection.manifest)
    return facts(
        [
            (
                "classes",
                "effective number of classes, exp(H) of the first classes of all images: how many "
                "classes there are, were they all as frequent",
            ),
            ("p1", f"the teacher's probability of its first class, at T = {base:g}"),
            ("entropy", "in nats, with the tail spread evenly: at most this much"),
            ("energy", "-T logsumexp(z / T) of the logits; lower is surer"),
            ("tail", "probability of all classes that are not stored, together"),
        ]
    )
