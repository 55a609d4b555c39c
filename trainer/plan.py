"""What a training run is going to do, settled before the first step and before torch is loaded."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from softlabel.shards.commits import Commit
from softlabel.shards.errors import IdentityError, UsageError
from softlabel.shards.matching import match_tars
from softlabel.shards.recipe import Recipe
from softlabel.shards.sealed import checksum
from softlabel.shards.specs import expand, is_local, local_path, redacted
from softlabel.shards.status import Status
from softlabel.shards.store import Store, open_store
from softlabel.shards.tails import interpolation_error, tail_weights
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.sampling import Sampler
from softlabel.trainer.sampling_notes import sampling_notes
from softlabel.trainer.sampling_plan import make_sampler

_OK = str(int(Status.OK))
# Where things lie, and what is said about them: nothing that changes the weights.
_NOT_DECIDING = {
    "shards", "labels", "output", "epochs", "steps", "device", "workers", "cache_dir", "cache_gb",
    "pixel_cache_gb",
    "checkpoint_every", "resume", "on_missing", "allow_partial", "log_interval", "log_format",
    "config", "dry_run", "init",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A settled run: the store, and which tars with how many images are trained on."""

    config: TrainConfig
    store: Store
    recipe: Recipe
    """The teacher's."""
    tars: tuple[int, ...]
    """Ordinals in the store, ascending: the order of --shards does not matter."""
    urls: Mapping[int, str]
    commits: Mapping[int, Commit]
    sampler: Sampler | None
    """The weighted stream; None where every image comes once an epoch."""
    notes: tuple[str, ...]
    """Lines to say before the first step."""

    @property
    def counts(self) -> list[int]:
        """Images of each tar that have labels."""
        return [_num_ok(self.commits[tar]) for tar in self.tars]

    @property
    def num_images(self) -> int:
        """Images of an epoch; of a weighted stream those that can come at all."""
        return sum(self.counts) if self.sampler is None else self.sampler.num_images

    @property
    def num_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.num_steps(self.num_images)

    def identity(self, *, student: str) -> dict[str, Any]:
        """What decides the weights; `student` names the architecture, or a folder's weights."""
        # As JSON has it: a checkpoint knows no tuples.
        fields = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.config).items()
            if name not in _NOT_DECIDING
        }
        content = {str(tar): self.commits[tar].files for tar in self.tars}
        return {
            **fields,
            "student": student,
            "steps": self.num_steps,
            "images": self.config.num_rows(self.num_images),
            "store_id": self.store.store_id,
            "tars": len(self.tars),
            "labels_sha256": checksum(content),
            "pool": None if self.sampler is None else self.sampler.pool.digest,
        }


def make_plan(config: TrainConfig) -> Plan:
    """Settle everything that flags leave open; read, don't write.

    Raises:
        UsageError: no such shards, store or kind of student; a store that is not complete; a
            temperature below the smallest stored one.
        IdentityError: the store and the tars don't belong together.
        StoreError: the store is damaged.
    """
    _refuse_several_processes()
    _check_paths(config)
    given = _expand(config.shards)
    store = open_store(config.labels)
    urls, unknown = _matched(config, store, given)
    commits = {tar: commit for tar, commit in store.commits().items() if tar in urls}
    pending = sorted(set(urls) - set(commits))
    if pending and config.on_missing == "error" and not config.allow_partial:
        raise UsageError(_incomplete(config, store, commits, pending))
    for tar, commit in commits.items():
        _refuse_other_size(urls[tar], commit)
    if not sum(map(_num_ok, commits.values())):
        raise UsageError(f"{config.labels}: none of the {len(given)} tars has a labelled image")
    tars = tuple(sorted(commits))
    sampler = make_sampler(config, store, tars, urls)
    notes = [*_missing_notes(commits, pending, unknown), *_tail_notes(config, store)]
    if sampler is not None:
        notes += sampling_notes(config, sampler, [commits[tar] for tar in tars])
    return Plan(
        config=config,
        store=store,
        recipe=Recipe.from_dict(store.manifest.recipe, source=f"{config.labels}/manifest.json"),
        tars=tars,
        urls={tar: urls[tar] for tar in commits},
        commits=commits,
        sampler=sampler,
        notes=tuple(notes),
    )


def _refuse_several_processes() -> None:
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UsageError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}: training on several GPUs does not work "
            "yet; start kd-train by itself"
        )


def _check_paths(config: TrainConfig) -> None:
    kinds = ("softlabel/", "torchvision/", "timm/")
    name = config.student
    folder = None if name is None else Path(name)
    if name and not (name.startswith(kinds) or ":" in name or Path(name).is_dir()):
        raise UsageError(
            f"--student {name}: wanted softlabel/small-cnn, torchvision/NAME, timm/NAME, "
            "pkg.module:factory or the folder of a student"
        )
    if config.init is not None and folder is not None and folder.is_dir():
        raise UsageError(
            f"--student {name}: is a folder, which is what --init is for; give one of the two"
        )
    begun = config.begun_from
    if begun is not None and not (begun / "config.json").is_file():
        raise UsageError(f"--init {begun}: wanted the folder of a student, found none there")
    output = str(config.output)
    if "://" in output or output.startswith("s3:/"):
        raise UsageError(f"--output {output}: wanted a local folder, found a URL")
    if config.output.exists() and not config.output.is_dir():
        raise UsageError(f"--output {output}: wanted a folder, found a file")
    if begun is not None and config.output.resolve() == begun.resolve():
        raise UsageError(
            f"--output {output}: is the student to begin from; write to another folder"
        )
    if config.resume not in ("auto", "never") and not Path(config.resume).is_dir():
        raise UsageError(
            f"--resume {config.resume}: wanted auto, never or the folder of a checkpoint"
        )


def _expand(shards: Sequence[str]) -> list[str]:
    pipes = [part for part in shards if part.startswith("pipe:")]
    if pipes:
        raise UsageError(
            f"--shards: {pipes[0]!r} can't be trained from: images are read by their offset; "
            "give the tars as files or URLs"
        )
    return expand(shards)


def _matched(
    config: TrainConfig, store: Store, given: Sequence[str]
) -> tuple[dict[int, str], list[str]]:
    """The given tars by their ordinal in the store, and those it has never heard of."""
    unknown: list[str] = []
    if config.on_missing == "skip":
        names = {name.rpartition("/")[2] for name in store.tars}
        unknown = [tar for tar in given if redacted(tar).rpartition("/")[2] not in names]
    if len(unknown) == len(given):
        raise IdentityError(
            f"{config.labels}: has labels for none of the {len(given)} tars, such as "
            f"{redacted(given[0])}; its first is {store.tars[0]}"
        )
    left_out = set(unknown)
    known = [tar for tar in given if tar not in left_out]
    return dict(zip(match_tars(store.tars, known), known, strict=True)), unknown


def _incomplete(
    config: TrainConfig, store: Store, commits: Mapping[int, Commit], pending: Sequence[int]
) -> str:
    labelled = sum(commit.members for commit in commits.values())
    rows = f" (about {labelled * len(pending) // len(commits):,} rows)" if commits else ""
    return (
        f"{config.labels}: {len(pending)} of {len(pending) + len(commits)} tars{rows} are not "
        f"labelled yet, the first is {store.tars[pending[0]]}; finish kd-label, or train on the "
        f"{labelled:,} rows there are with --allow-partial"
    )


def _refuse_other_size(tar: str, commit: Commit) -> None:
    """A remote tar's size is compared when it has been fetched."""
    if not is_local(tar):
        return
    size = Path(local_path(tar)).stat().st_size
    if size != commit.tar_size:
        raise IdentityError(
            f"{tar}: had {commit.tar_size:,} bytes when it was labelled, now it has {size:,}; "
            "train from the tar that was labelled, or label this one"
        )


def _missing_notes(
    commits: Mapping[int, Commit], pending: Sequence[int], unknown: Sequence[str]
) -> list[str]:
    notes = []
    if pending:
        notes.append(f"left out: {len(pending)} tar(s) that are not labelled yet")
    if unknown:
        notes.append(
            f"left out: {len(unknown)} tar(s) unknown to the store, such as {redacted(unknown[0])}"
        )
    bad = sum(commit.members - _num_ok(commit) for commit in commits.values())
    if bad:
        notes.append(f"left out: {bad:,} image(s) that could not be labelled")
    return notes


def _tail_notes(config: TrainConfig, store: Store) -> list[str]:
    manifest, temperature = store.manifest, config.kd_temperature
    if not config.needs_tail or manifest.top_k == manifest.num_classes:
        return []
    tail_weights(manifest.temperatures, temperature)
    error = interpolation_error(manifest.temperatures, temperature)
    if not error:
        return []
    stored = ", ".join(f"{t:g}" for t in manifest.temperatures)
    return [
        f"tails at temperature {temperature:g} are interpolated from those stored ({stored}), "
        f"with an error of up to {error:.1g} nats"
    ]


def _num_ok(commit: Commit) -> int:
    return commit.status_counts.get(_OK, 0)
