"""What is in a store, from the store alone: members, labels, classes, bytes, runs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.disk import raw_row_bytes
from softlabel.shards.statistics import WANTED_TAIL, LabelStatistics, probabilities
from softlabel.shards.status import Status
from softlabel.shards.store import Store

_SHOWN_CLASSES = 10


@dataclass
class _Sums:
    labels: LabelStatistics
    top1: NDArray[np.int64]
    tail_by_temperature: NDArray[np.float64]
    targets: int = 0
    duplicates: int = 0


def store_stats(store: Store) -> dict[str, Any]:
    """All figures as JSON has them; reads every committed tar's labels."""
    manifest = store.manifest
    commits = store.commits()
    sums = _sum_up(store)
    counts = dict.fromkeys((status.name.lower() for status in Status), 0)
    for commit in commits.values():
        for number, count in commit.status_counts.items():
            counts[Status(int(number)).name.lower()] += count
    members = sum(commit.members for commit in commits.values())
    wanted, exact = sums.labels.wanted_top_k()
    views = max(sums.labels.rows, 1)
    return {
        "store": str(store.path),
        "store_id": store.store_id,
        "tars": len(store.tars),
        "labelled_tars": len(commits),
        "members": members,
        "status": {name: count for name, count in counts.items() if count},
        "with_target": sums.targets,
        "duplicate_images": sums.duplicates,
        "manifest": manifest.to_dict() | {"class_names": bool(manifest.class_names)},
        "labels": {
            "views": sums.labels.rows,
            "mean_p1": sums.labels.mean_confidence,
            "mean_entropy_nats": sums.labels.mean_entropy,
            "share_p1_over_0.999": sums.labels.saturated_share,
            "mean_tail": {
                f"{t:g}": float(tail / views)
                for t, tail in zip(manifest.temperatures, sums.tail_by_temperature, strict=True)
            },
            "top_k_for_mean_tail_under_0.05": {"k": wanted, "exact": exact},
        },
        "classes": _classes(store, sums.top1),
        "bytes": _bytes(store, members),
        "runs": _runs(store),
    }


def _sum_up(store: Store) -> _Sums:
    manifest = store.manifest
    left_out = manifest.num_classes - manifest.top_k
    sums = _Sums(
        LabelStatistics(manifest.temperatures, left_out),
        np.zeros(manifest.num_classes, np.int64),
        np.zeros(len(manifest.temperatures)),
    )
    images: list[NDArray[np.uint64]] = []
    names = ("status", "topk_logit", "topk_class", "tail_lse", "target", "image_hash")
    for tar in store.commits():
        rows = store.read(tar, names)
        ok = rows["status"] == Status.OK
        logit, tail = rows["topk_logit"][ok], rows["tail_lse"][ok]
        sums.labels.add(logit, tail)
        sums.top1 += np.bincount(
            rows["topk_class"][ok][..., 0].ravel(), minlength=manifest.num_classes
        )
        for i, temperature in enumerate(manifest.temperatures):
            _, mass = probabilities(
                logit,
                tail,
                temperatures=manifest.temperatures,
                temperature=temperature,
                num_not_stored=left_out,
            )
            sums.tail_by_temperature[i] += mass.sum()
        sums.targets += int((rows["target"] >= 0).sum())
        images.append(rows["image_hash"][ok])
    if images:
        every = np.concatenate(images)
        sums.duplicates = len(every) - len(np.unique(every))
    return sums


def _classes(store: Store, top1: NDArray[np.int64]) -> dict[str, Any]:
    share = top1 / max(top1.sum(), 1)
    seen = share[share > 0]
    effective = float(np.exp(-(seen * np.log(seen)).sum())) if len(seen) else 0.0
    order = np.argsort(-top1, kind="stable")[:_SHOWN_CLASSES]
    return {
        "effective_number": effective,
        "never_first": int((top1 == 0).sum()),
        "most_frequent": {class_name(store, int(c)): float(share[c]) for c in order if top1[c]},
    }


def class_name(store: Store, number: int) -> str:
    """A class by name, or by number where the store has no names."""
    names = store.manifest.class_names
    return names[number] if names else str(number)


def _bytes(store: Store, members: int) -> dict[str, Any]:
    stored = {
        spec.name: sum(f.stat().st_size for f in (store.path / spec.name).glob("c.*"))
        for spec in store.manifest.arrays
    }
    total = sum(stored.values())
    return {
        "raw_a_member": raw_row_bytes(store.manifest),
        "stored_a_member": round(total / members, 2) if members else None,
        "stored": total,
        "by_array": stored,
    }


def _runs(store: Store) -> list[dict[str, Any]]:
    """The `end` line of each run's log; a line that is torn is passed over."""
    found = []
    for path in sorted((store.path / "runs").glob("*.log")):
        for line in path.read_text().splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("event") == "end":
                found.append({"log": path.name, **{k: event[k] for k in event if k != "event"}})
    return found


def stats_lines(stats: dict[str, Any]) -> Iterator[str]:
    """The figures as people read them."""
    labels, manifest = stats["labels"], stats["manifest"]
    yield f"store      {stats['store']}, id {stats['store_id'][:12]}"
    status = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in stats["status"].items())
    yield f"tars       {stats['labelled_tars']:,} of {stats['tars']:,} labelled"
    yield f"members    {stats['members']:,}: {status or 'none'}"
    yield (
        f"           {stats['with_target']:,} with a target, "
        f"{stats['duplicate_images']:,} exact duplicates of another"
    )
    yield (
        f"teacher    sha256 {manifest['teacher_sha256'][:12]}, {manifest['num_classes']} classes, "
        f"{manifest['provider']} {manifest['precision']}"
    )
    yield (
        f"labels     {labels['views']:,} views ({manifest['views']} {manifest['view_recipe']} an "
        f"image), top {manifest['top_k']}"
    )
    yield (
        f"           mean p1 {labels['mean_p1']:.3f}, mean entropy "
        f"{labels['mean_entropy_nats']:.3f} nats, p1 > 0.999 in {labels['share_p1_over_0.999']:.1%}"
    )
    tails = ", ".join(f"{mass:.2%} at {t}" for t, mass in labels["mean_tail"].items())
    yield f"           mean tail mass by temperature: {tails}"
    wanted = labels["top_k_for_mean_tail_under_0.05"]
    least = "" if wanted["exact"] else "at least "
    yield f"           K for a mean tail under {WANTED_TAIL:.0%}: {least}{wanted['k']}"
    classes = stats["classes"]
    yield (
        f"classes    effective number {classes['effective_number']:.1f} of "
        f"{manifest['num_classes']}, {classes['never_first']} never first"
    )
    frequent = ", ".join(f"{name} {share:.1%}" for name, share in classes["most_frequent"].items())
    yield f"           {frequent}"
    size = stats["bytes"]
    yield (
        f"bytes      {size['stored'] / 1e6:,.2f} MB; a member {size['stored_a_member']}, "
        f"raw {size['raw_a_member']}"
    )
    for run in stats["runs"]:
        yield f"run        {run['log']}: {run['images']:,} images, {run['images_per_s']:,} images/s"
