"""What is in a store, from the store alone: members, labels, classes, sources, bytes, runs."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from softlabel.shards.disk import raw_row_bytes
from softlabel.shards.statistics import WANTED_TAIL
from softlabel.shards.store import Store
from softlabel.tools.stats.collect import Collection, collect
from softlabel.tools.stats.findings import NOTES, label_warnings, shown
from softlabel.tools.stats.lines import source_lines
from softlabel.tools.stats.record import source_record, tar_record
from softlabel.tools.stats.source import SourceStatistics
from softlabel.tools.stats.values import base_temperature


def store_stats(store: Store, collection: Collection | None = None) -> dict[str, Any]:
    """All figures as JSON has them; reads every committed tar's labels, unless they were read."""
    manifest = store.manifest
    collection = collection or collect(store)
    whole = collection.whole
    named = partial(class_name, store)
    return {
        "store": str(store.path),
        "store_id": store.store_id,
        "tars": len(store.tars),
        "labelled_tars": len(collection.tars),
        "members": whole.rows,
        "status": {status.name.lower(): count for status, count in whole.status.items()},
        "with_target": whole.targets,
        "duplicate_images": whole.duplicates,
        "duplicates_exact": whole.duplicates_exact,
        "manifest": manifest.to_dict() | {"class_names": bool(manifest.class_names)},
        "labels": _labels(collection),
        "classes": _classes(store, whole),
        "bytes": _bytes(store, whole.rows),
        "runs": _runs(store),
        "source_by": str(collection.by),
        "sources": [source_record(source, named) for source in collection.sources],
        "by_tar": [tar_record(tar, named) for tar in collection.tars],
        "warnings": label_warnings(collection, class_name=named),
    }


def _labels(collection: Collection) -> dict[str, Any]:
    whole, manifest = collection.whole, collection.manifest
    base = base_temperature(manifest)
    wanted, exact = whole.wanted_top_k.get(base, (0, True))
    return {
        "views": whole.labels,
        "temperature": base,
        "mean_p1": whole.mean("p1") or 0.0,
        "mean_entropy_nats": whole.mean("entropy") or 0.0,
        "mean_energy": whole.mean("energy") or 0.0,
        "share_p1_over_0.999": whole.saturated_share,
        "mean_tail": {f"{t:g}": whole.mean(f"tail at {t:g}") or 0.0 for t in manifest.temperatures},
        "top_k_for_mean_tail_under_0.05": {"k": wanted, "exact": exact},
    }


def _classes(store: Store, whole: SourceStatistics) -> dict[str, Any]:
    return {
        "effective_number": whole.effective_classes,
        "never_first": int(np.count_nonzero(whole.class_histogram == 0)),
        "most_frequent": {
            class_name(store, number): count / whole.labelled
            for number, count in whole.most_frequent
        },
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
    yield from _label_lines(labels)
    classes = stats["classes"]
    yield (
        f"classes    effective number {classes['effective_number']:.1f} of "
        f"{manifest['num_classes']}, {classes['never_first']} never first"
    )
    frequent = ", ".join(
        f"{shown(name)} {share:.1%}" for name, share in classes["most_frequent"].items()
    )
    yield f"           {frequent}"
    size = stats["bytes"]
    yield (
        f"bytes      {size['stored'] / 1e6:,.2f} MB; a member {size['stored_a_member']}, "
        f"raw {size['raw_a_member']}"
    )
    for run in stats["runs"]:
        yield f"run        {run['log']}: {run['images']:,} images, {run['images_per_s']:,} images/s"


def _label_lines(labels: dict[str, Any]) -> Iterator[str]:
    if not labels["views"]:
        return
    yield (
        f"           mean p1 {labels['mean_p1']:.3f}, mean entropy "
        f"{labels['mean_entropy_nats']:.3f} nats, p1 > 0.999 in {labels['share_p1_over_0.999']:.1%}"
    )
    tails = ", ".join(f"{mass:.2%} at {t}" for t, mass in labels["mean_tail"].items())
    yield f"           mean tail mass by temperature: {tails}"
    wanted = labels["top_k_for_mean_tail_under_0.05"]
    least = "" if wanted["exact"] else "at least "
    yield f"           K for a mean tail under {WANTED_TAIL:.0%}: {least}{wanted['k']}"


def collection_lines(store: Store, collection: Collection) -> Iterator[str]:
    """The sources as a table, warnings, and what the figures do not say."""
    named = partial(class_name, store)
    yield from source_lines(collection, named)
    for warning in label_warnings(collection, class_name=named):
        yield f"warning    {warning}"
    if collection.sources:
        yield from (f"note       {note}" for note in NOTES)
