"""kd-bench label: the labelling run against what its teacher and its decoder allow.

The limit is 1 / (1 / teacher-only images/s + decode seconds / cores): the teacher at its best batch
on pixels in memory, and decoding spread over all cores with nothing in between.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softlabel.labeler.batching import CANDIDATES
from softlabel.labeler.config import LabelConfig
from softlabel.labeler.graph import prepare
from softlabel.labeler.plan import Plan, make_plan
from softlabel.labeler.rendering import ViewRenderer
from softlabel.labeler.run import label
from softlabel.labeler.session import TeacherSession, num_cores
from softlabel.shards.decoders import open_decoder
from softlabel.shards.members import Member, members
from softlabel.shards.specs import open_tar
from softlabel.shards.store import Store
from softlabel.shards.tars import TarStream

_SAMPLE = 256
_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class LabelBench:
    """What to label, and how often."""

    teacher: Path
    """ONNX teacher with its recipe inside."""
    shards: tuple[str, ...]
    """Tars to label."""
    views: int = 1
    """Views per image."""
    decoder: str = "auto"
    """auto, torchvision or pillow."""
    repeats: int = 3
    """Whole runs; medians are reported."""


def bench_label(bench: LabelBench) -> dict[str, Any]:
    """Rates in images/s, their ratio to the limit, and the split of the time."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "labels.zarr"
        config = LabelConfig(
            teacher=bench.teacher,
            shards=bench.shards,
            out=out,
            views=bench.views,
            view_recipe="center" if bench.views == 1 else "crop-flip",
            decoder=bench.decoder,  # type: ignore[arg-type]
        )
        plan = make_plan(config)
        rounds = [_round(plan, Path(folder)) for _ in range(bench.repeats)]
    found: dict[str, Any] = {
        name: round(float(np.median([r[name] for r in rounds])), 1) for name in rounds[0]
    }
    cores = num_cores()
    limit = 1 / (bench.views / found["teacher_views_per_s"] + 1 / (found["decode_per_s"] * cores))
    return {
        **found,
        "limit_images_per_s": round(limit, 1),
        "ratio_to_limit": round(found["kd_label_images_per_s"] / limit, 3),
        "views": bench.views,
        "decoder": plan.manifest.decoder,
        "rounds": rounds,
    }


def _round(plan: Plan, folder: Path) -> dict[str, float]:
    """One measurement of each, close together in time."""
    some = list(_some_members(plan))
    decoder = open_decoder(plan.manifest.decoder, max_pixels=plan.manifest.max_image_pixels)
    renderer = ViewRenderer(plan.manifest, plan.recipe, decoder)
    start = time.perf_counter()
    chunk = renderer(0, some)
    decode_s = time.perf_counter() - start
    seconds, images, store = _whole_run(plan)
    stored = sum(
        path.stat().st_size
        for spec in store.manifest.arrays
        for path in (store.path / spec.name).glob("c.*")
    )
    shutil.rmtree(store.path)
    return {
        "teacher_views_per_s": _teacher_speed(plan, chunk.pixels),
        "decode_per_s": len(some) / decode_s,
        "kd_label_images_per_s": images / seconds,
        "stored_bytes_a_member": stored / images,
    }


def _some_members(plan: Plan) -> Iterator[Member]:
    with open_tar(plan.tars[0]) as (file, size):
        source = TarStream(file, name=plan.tars[0], size=size)
        for member in members(source, image_ext=plan.manifest.image_ext):
            if member.ordinal == _SAMPLE:
                return
            yield member


def _teacher_speed(plan: Plan, pixels: "np.ndarray[Any, np.dtype[np.uint8]]") -> float:
    """The labelling graph alone on pixels in memory, at the best batch size."""
    from softlabel.shards.cache import cache_folder

    graph = prepare(
        plan.teacher,
        plan.recipe,
        top_k=plan.manifest.top_k,
        temperatures=plan.manifest.temperatures,
        cache_dir=cache_folder() / "graphs",
    )
    session = TeacherSession(graph, provider=plan.manifest.provider, threads=num_cores())
    best = 0.0
    for size in CANDIDATES:
        batch = np.resize(pixels, (size, *pixels.shape[1:]))
        session.run(batch)
        times: list[float] = []
        while sum(times) < _SECONDS:
            start = time.perf_counter()
            session.run(batch)
            times.append(time.perf_counter() - start)
        best = max(best, size / float(np.median(times)))
    return best


def _whole_run(plan: Plan) -> tuple[float, int, Store]:
    """A labelling run from its first image to its last commit, by its own log."""
    import json

    outcome = label(plan.config)
    (log,) = (outcome.store.path / "runs").glob("*.log")
    end = json.loads(log.read_text().splitlines()[-1])
    return end["seconds"]["total"], end["images"], outcome.store


def lines(result: dict[str, Any]) -> Sequence[str]:
    """The result as people read it."""
    return [
        f"teacher alone    {result['teacher_views_per_s']:>10,.1f} views/s",
        f"decode, one core {result['decode_per_s']:>10,.1f} images/s ({result['decoder']})",
        f"limit            {result['limit_images_per_s']:>10,.1f} images/s",
        f"kd-label         {result['kd_label_images_per_s']:>10,.1f} images/s, "
        f"{result['ratio_to_limit']:.2f} of the limit",
        f"stored           {result['stored_bytes_a_member']:>10,.1f} bytes a member",
    ]
