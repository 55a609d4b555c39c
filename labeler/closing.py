"""What kd-label says at the end: what became of everything, and whether top-k was enough."""

from collections.abc import Iterator, Mapping, Sequence

from softlabel.labeler.rows import MemberRow
from softlabel.labeler.tar_labels import StageTimes
from softlabel.shards.commits import Commit
from softlabel.shards.statistics import WANTED_TAIL, LabelStatistics
from softlabel.shards.status import Status
from softlabel.shards.store import Store


def label_lines(statistics: LabelStatistics, *, top_k: int) -> Iterator[str]:
    """Mean tail mass, saturation, and the K that would bring the mean tail under 5 %."""
    if not statistics.rows:
        return
    wanted, exact = statistics.wanted_top_k()
    yield (
        f"labels: mean tail mass {statistics.mean_tail:.2%} outside the top {top_k}, "
        f"p1 > 0.999 in {statistics.saturated_share:.1%}, mean p1 {statistics.mean_confidence:.3f}"
    )
    if exact:
        yield f"K = {wanted} would be enough to keep the mean tail under {WANTED_TAIL:.0%}"
    else:
        yield f"K of at least {wanted} is needed to bring the mean tail under {WANTED_TAIL:.0%}"
    if statistics.saturated_share > 0.5:
        yield "warning: the teacher is near one-hot on most images; train at a higher temperature"


def member_lines(commits: Mapping[int, Commit]) -> Iterator[str]:
    """How many members have which status."""
    counts = dict.fromkeys(Status, 0)
    for commit in commits.values():
        for number, count in commit.status_counts.items():
            counts[Status(int(number))] += count
    total = sum(counts.values())
    parts = [f"{counts[Status.OK]:,} ok"]
    parts += [
        f"{count:,} {status.name.lower().replace('_', ' ')}"
        for status, count in counts.items()
        if count and status != Status.OK
    ]
    yield f"members: {total:,} in {len(commits):,} labelled tars: {', '.join(parts)}"
    empty = sum(commit.members == 0 for commit in commits.values())
    if empty:
        yield f"warning: {empty} tar(s) have no member at all"


def bad_lines(
    bad: Sequence[tuple[str, MemberRow]], *, num_bad: int, duplicates: int
) -> Iterator[str]:
    """The first bad members by name and reason."""
    for tar, row in bad:
        what = row.status.name.lower().replace("_", " ")
        reason = row.reason or "the teacher's output is not finite"
        yield f"bad: {tar} member {row.key}: {what}: {reason}"
    if num_bad > len(bad) > 0:
        yield f"bad: and {num_bad - len(bad):,} more; kd-store stats counts them"
    if duplicates:
        yield f"warning: {duplicates:,} member(s) have the key of the member before them"


def time_line(times: StageTimes, *, images: int, workers: int) -> str:
    """Images a second and where the time went."""
    total = max(times.total, 1e-9)
    return (
        f"time: {total:,.1f} s, {images / total:,.0f} images/s; "
        f"teacher {times.teacher / total:.0%}, waited for images {times.wait_images / total:.0%}, "
        f"for the disk {times.wait_disk / total:.0%}; {workers} decoding thread(s) busy "
        f"{times.decode / total / workers:.0%}"
    )


def size_line(store: Store, members: int) -> str:
    """Bytes on disk."""
    from softlabel.shards.disk import raw_row_bytes

    stored = sum(
        path.stat().st_size
        for spec in store.manifest.arrays
        for path in (store.path / spec.name).glob("c.*")
    )
    return (
        f"store: {store.path}, id {store.store_id[:12]}, {stored / 1e6:,.1f} MB = "
        f"{stored / max(members, 1):,.1f} bytes a member (raw {raw_row_bytes(store.manifest)})"
    )
