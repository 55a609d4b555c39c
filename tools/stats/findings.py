"""What in a store's labels is worth a warning, in plain words. Reasons stand with the bounds."""

from collections.abc import Callable, Iterator, Sequence

from softlabel.shards.statistics import SATURATED, WANTED_TAIL
from softlabel.shards.status import Status
from softlabel.tools.stats.collect import Collection
from softlabel.tools.stats.source import SourceStatistics

ONE_HOT_SHARE = 0.5
"""Labels with p1 > 0.999: on more than half of them all other classes have under 0.001 together, so
that at T = 1 a student learns hardly more than from hard labels. kd-label warns from there too."""

ONE_CLASS_SHARE = 0.9
"""Images of a source that are called one class. At 0.9, with the rest on one other class, a source
has 1.4 effective classes; noise had 1.6 of 10, letters 8.2. It crowds out the other classes."""

DUPLICATE_SHARE = 0.05
"""Labelled images that equal another: each twentieth step of a student is one it has done."""

LARGE_TAIL = 0.2
"""Mean probability outside the stored classes: four times the 5 % that is near the whole truth. A
choice, not a measurement."""

TAIL_TEMPERATURE = 4.0
"""The largest temperature whose tail is warned of: that of published recipes. At higher ones the
tail is large whatever K is."""

FEWEST_IMAGES = 100
"""Labelled images below which a source's shares say too little to warn of."""

_SHOWN = 5
"""Sources named in warnings of one kind; with more, how many more."""

NOTES = (
    "p1, entropy and energy say how sure the teacher is, not whether it is right: labels that are "
    "confidently wrong can't be told from a store",
    "confidence is no measure of how related an image is to the teacher's classes: plain noise can "
    "have the highest p1; effective classes rank sources better",
)
"""What the figures do not say."""


def label_warnings(collection: Collection, *, class_name: Callable[[int], str]) -> list[str]:
    """One sentence a warning; none where all is well."""
    return [
        *_one_hot(collection),
        *_some(_one_class(collection.sources, class_name), "are each called one class"),
        *_some(_copies(collection.sources), "have many exact duplicates"),
        *_some(_shared(collection.sources), "share many images with others"),
        *_tail(collection),
        *_some(_bad(collection.sources), "have images that could not be labelled"),
    ]


def _some(found: Iterator[str], what: str) -> Iterator[str]:
    lines = list(found)
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"{len(lines) - _SHOWN:,} more sources {what}; --json has them"


def _large(sources: Sequence[SourceStatistics]) -> Iterator[SourceStatistics]:
    return (source for source in sources if source.labelled >= FEWEST_IMAGES)


def _one_hot(collection: Collection) -> Iterator[str]:
    advice = "a higher --kd-temperature says more"
    whole = collection.whole
    if whole.saturated_share > ONE_HOT_SHARE:
        yield (
            f"the teacher is near one-hot: p1 > {SATURATED:g} on {whole.saturated_share:.0%} of "
            f"labels; {advice}"
        )
        return
    yield from _some(
        (
            f"the teacher is near one-hot on source {shown(source.name)}: p1 > {SATURATED:g} on "
            f"{source.saturated_share:.0%} of labels; {advice}"
            for source in _large(collection.sources)
            if source.saturated_share > ONE_HOT_SHARE
        ),
        "are near one-hot",
    )


def _one_class(
    sources: Sequence[SourceStatistics], class_name: Callable[[int], str]
) -> Iterator[str]:
    for source in _large(sources):
        number, count = source.most_frequent[0]
        if count / source.labelled > ONE_CLASS_SHARE and len(source.class_histogram) > 1:
            yield (
                f"{count / source.labelled:.0%} of source {shown(source.name)} is called "
                f"`{shown(class_name(number))}`; --sample balanced shows such images less often"
            )


def _copies(sources: Sequence[SourceStatistics]) -> Iterator[str]:
    for source in _large(sources):
        if source.duplicate_share > DUPLICATE_SHARE:
            about = "" if source.duplicates_exact else "about "
            yield (
                f"{about}{source.duplicate_share:.0%} of source {shown(source.name)} are exact "
                "duplicates"
            )


def _shared(sources: Sequence[SourceStatistics]) -> Iterator[str]:
    for source in _large(sources):
        if source.shared_share > DUPLICATE_SHARE:
            about = "" if source.duplicates_exact else "about "
            yield (
                f"{about}{source.shared_share:.0%} of source {shown(source.name)} are also in "
                "other sources, byte by byte"
            )


def _tail(collection: Collection) -> Iterator[str]:
    """At the highest temperature only: the tail grows with it."""
    whole = collection.whole
    temperature = tail_temperature(collection.manifest.temperatures)
    if temperature > TAIL_TEMPERATURE:
        return
    mean = whole.mean(f"tail at {temperature:g}")
    if mean is not None and mean > LARGE_TAIL:
        k, exact = whole.wanted_top_k[temperature]
        wanted = f"K = {k:,}" if exact else f"K of at least {k:,}"
        yield (
            f"mean tail {mean:.0%} at T = {temperature:g}: {wanted} would bring it under "
            f"{WANTED_TAIL:.0%} (kd-label --top-k)"
        )


def tail_temperature(temperatures: Sequence[float]) -> float:
    """The largest stored temperature up to `TAIL_TEMPERATURE`, or the smallest of all."""
    return max((t for t in temperatures if t <= TAIL_TEMPERATURE), default=min(temperatures))


def _bad(sources: Sequence[SourceStatistics]) -> Iterator[str]:
    """However few: each is an image that was meant to be there."""
    for source in sources:
        if source.bad:
            reasons = ", ".join(
                f"{count:,} {status.name.lower().replace('_', ' ')}"
                for status, count in source.status.items()
                if status != Status.OK
            )
            images = "image" if source.bad == 1 else "images"
            yield (
                f"source {shown(source.name)}: {source.bad:,} {images} could not be labelled "
                f"({reasons})"
            )


def shown(name: str, limit: int = 40) -> str:
    """A name as a terminal may show it: short, and without characters that would steer it."""
    printable = "".join(c if c.isprintable() else "?" for c in name)
    return printable if len(printable) <= limit else printable[: limit - 3] + "..."
