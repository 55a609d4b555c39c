"""Where the teacher's answers come from: a store that is there, or one that is made first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softlabel.shards.commits import Commit
from softlabel.shards.errors import IdentityError, UnfinishedError, UsageError
from softlabel.shards.matching import match_tars
from softlabel.shards.specs import expand, is_local, local_path
from softlabel.shards.statistics import probabilities
from softlabel.shards.status import Status
from softlabel.shards.store import Store, open_store
from softlabel.shards.tails import tail_at
from softlabel.tools.evaluate.config import EvalConfig
from softlabel.tools.evaluate.models import Model, require_classes
from softlabel.tools.evaluate.teacher_rows import TeacherRows
from softlabel.trainer.labels import LabelledRows

FOLDER = "teacher-labels.zarr"
TEMPERATURE = 1.0
_ALL_CLASSES = 1000
_TOP_K = 64
_LABELS = ("topk_logit", "topk_class", "tail_lse", "max_logit")
_PLACE = ("key_hash", "image_hash", "offset", "size", "target")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A store, and those of its tars that the evaluation is about."""

    store: Store
    urls: Mapping[int, str]
    """Where each tar lies now, by its ordinal in the store, ascending."""
    commits: Mapping[int, Commit]

    @property
    def num_images(self) -> int:
        """Images that have labels."""
        ok = str(int(Status.OK))
        return sum(commit.status_counts.get(ok, 0) for commit in self.commits.values())

    @property
    def left_out(self) -> dict[str, int]:
        """Members without labels, by status."""
        counts: dict[str, int] = {}
        for commit in self.commits.values():
            for number, count in commit.status_counts.items():
                if (status := Status(int(number))) != Status.OK:
                    name = status.name.lower()
                    counts[name] = counts.get(name, 0) + count
        return counts

    def rows(self, tar: int) -> TeacherRows:
        """The ok rows of a tar, with view 0."""
        manifest = self.store.manifest
        embedded = ("embedding",) if manifest.embedding_dim is not None else ()
        arrays = self.store.read(tar, ("status", *_PLACE, *_LABELS, *embedded))
        member = np.flatnonzero(arrays["status"] == Status.OK)
        place = {name: arrays[name][member] for name in _PLACE}
        logit, tail_lse = arrays["topk_logit"][member, 0], arrays["tail_lse"][member, 0]
        known: Any = {
            "temperatures": manifest.temperatures,
            "temperature": TEMPERATURE,
            "num_not_stored": manifest.num_classes - manifest.top_k,
        }
        head, tail = probabilities(logit, tail_lse, **known)
        rows = LabelledRows(
            tar=np.full(len(member), tar, np.int32),
            member=member.astype(np.int32),
            key_hash=place["key_hash"],
            image_hash=place["image_hash"],
            offset=place["offset"].astype(np.int64),
            size=place["size"].astype(np.int64),
            target=place["target"].astype(np.int64),
            view=np.zeros(len(member), np.int64),
            topk_logit=logit,
            topk_class=arrays["topk_class"][member, 0].astype(np.int32),
            tail_lse=tail_at(tail_lse, **known),
            weight=np.ones(len(member), np.float32),
            copy=np.zeros(len(member), np.int64),
        )
        return TeacherRows(
            rows=rows,
            num_classes=manifest.num_classes,
            head=head,
            tail=tail,
            embedding=arrays["embedding"][member, 0] if embedded else None,
            max_logit=arrays["max_logit"][member, 0],
        )


def find_labels(config: EvalConfig, models: list[Model]) -> Labelled:
    """The labels of --shards: the teacher's, made now or by an earlier run, or those of --labels.

    Raises:
        UsageError: no such shards, store or teacher; tars that are not labelled yet; no image.
        UnfinishedError: the teacher can't label one of the tars.
        IdentityError: the store knows nothing of a tar, the tar has changed, or teacher and student
            have other numbers of classes.
    """
    given = expand(config.shards, allow_pipe=config.allow_pipe)
    if config.teacher is not None:
        store = _label(config, config.teacher, models, given)
    else:
        assert config.labels is not None
        store = open_store(config.labels)
    for model in models:
        require_classes(model, store.manifest.num_classes, of="the teacher")
    return labelled_tars(store, given)


def labelled_tars(store: Store, given: Sequence[str]) -> Labelled:
    """What a store has of some tars.

    Raises:
        UsageError: tars that are not labelled yet; no labelled image.
        IdentityError: the store knows nothing of a tar, or the tar has changed.
    """
    urls = dict(sorted(zip(match_tars(store.tars, given), given, strict=True)))
    commits = {tar: commit for tar, commit in store.commits().items() if tar in urls}
    if pending := sorted(set(urls) - set(commits)):
        raise UsageError(
            f"{store.path}: {len(pending)} of {len(urls)} tars are not labelled yet, the first is "
            f"{store.tars[pending[0]]}; finish kd-label, or name only the others"
        )
    for tar, commit in commits.items():
        _refuse_other_size(urls[tar], commit)
    labelled = Labelled(store=store, urls=urls, commits=commits)
    if not labelled.num_images:
        raise UsageError(f"{store.path}: none of the {len(urls)} tars has a labelled image")
    return labelled


def _label(config: EvalConfig, teacher: Path, models: list[Model], given: Sequence[str]) -> Store:
    """The teacher's labels of the given tars: names, as standard input can be read only once."""
    from softlabel.labeler.config import LabelConfig
    from softlabel.labeler.run import label
    from softlabel.labeler.teacher import open_teacher

    num_classes = open_teacher(teacher, embedding=config.embedding).num_classes
    for model in models:
        require_classes(model, num_classes, of=f"--teacher {teacher}")
    decoder = models[0].decoder
    wanted = LabelConfig(
        teacher=teacher,
        shards=tuple(given),
        out=config.output / FOLDER,
        recipe=config.recipe,
        top_k=num_classes if num_classes <= _ALL_CLASSES else _TOP_K,
        embedding=config.embedding,
        workers=config.workers,
        decoder="auto" if decoder is None else decoder,  # type: ignore[arg-type]
        providers=config.device,
        max_bad_rate=1.0,
        allow_pipe=config.allow_pipe,
        grace=0.0,
        log_format=config.log_format,
    )
    try:
        outcome = label(wanted)
    except IdentityError as error:
        raise IdentityError(
            f"{error} (for kd-eval: another --output, or delete {wanted.out})"
        ) from None
    if outcome.signal:
        raise SystemExit(outcome.exit_code)
    if outcome.failed:
        tar, reason = next(iter(outcome.failed.items()))
        raise UnfinishedError(f"{len(outcome.failed)} tar(s) can't be labelled: {tar}: {reason}")
    return outcome.store


def _refuse_other_size(tar: str, commit: Commit) -> None:
    """A remote tar's size is compared when it has been fetched."""
    if not is_local(tar):
        return
    size = Path(local_path(tar)).stat().st_size
    if size != commit.tar_size:
        raise IdentityError(
            f"{tar}: had {commit.tar_size:,} bytes when it was labelled, now it has {size:,}; "
            "evaluate on the tar that was labelled, or label this one"
        )
