"""What an evaluation does beyond its one pass over the images: OOD detection and stress."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from softlabel.shards.errors import UsageError
from softlabel.shards.progress import Progress
from softlabel.shards.specs import expand, is_local, local_path, redacted
from softlabel.shards.store import open_store
from softlabel.tools.evaluate.answers import Images
from softlabel.tools.evaluate.config import EvalConfig
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.ood.run import (
    MOST_ID_IMAGES,
    Ood,
    out_of_distribution,
    require_image,
)
from softlabel.tools.evaluate.stress.attacks import Attack, make_attack
from softlabel.tools.evaluate.stress.run import Stress, stress
from softlabel.tools.evaluate.teacher_labels import Labelled, labelled_tars
from softlabel.tools.evaluate.teacher_session import TeacherOnImages


@dataclass(frozen=True, kw_only=True)
class Further:
    """The parts that were asked for, and what they need; found before the first image is read."""

    config: EvalConfig
    teacher: TeacherOnImages | None
    """None where it is not needed, or known by its labels only."""
    ood_tars: Sequence[str]
    ood_labels: Labelled | None
    attacks: Sequence[Attack]

    @classmethod
    def prepare(cls, config: EvalConfig, models: Sequence[Model], labelled: Labelled) -> "Further":
        """Open what will be needed.

        Raises:
            SoftLabelError: no such tars or labels; foreign tars that are of the collection, or
                without an image; the teacher is not that of the labels.
        """
        tars = _foreign_tars(config, labelled) if config.ood_shards else []
        if tars:
            require_image(tars, models, labelled.store.manifest)
        ood_labels = None
        if config.ood_labels is not None:
            ood_labels = labelled_tars(open_store(config.ood_labels), tars)
        attacks = [
            make_attack(
                kind,  # type: ignore[arg-type]
                eps=config.attack_eps,
                steps=config.attack_steps,
                step_size=config.attack_step_size,
                restarts=config.attack_restarts,
            )
            for kind in config.attack_kinds
        ]
        teacher = None
        if config.teacher is not None and (tars or attacks or config.degradation_kinds):
            manifest = labelled.store.manifest
            teacher = TeacherOnImages.of_labels(config.teacher, manifest, provider=config.device)
        return cls(
            config=config, teacher=teacher, ood_tars=tars, ood_labels=ood_labels, attacks=attacks
        )

    @property
    def stresses(self) -> bool:
        """Whether pictures are to be degraded or attacked."""
        return bool(self.attacks or self.config.degradation_kinds)

    def detect(self, models: Sequence[Model], labelled: Labelled, images: Images) -> Ood:
        """OOD detection."""
        total = 2 * min(len(images.target), MOST_ID_IMAGES)
        with self._progress("out of distribution", total) as progress:
            return out_of_distribution(
                models,
                labelled,
                images,
                tars=self.ood_tars,
                teacher=self.teacher,
                ood_labels=self.ood_labels,
                batch_size=self.config.batch_size,
                workers=self.config.num_workers,
                progress=progress,
            )

    def stress(self, models: Sequence[Model], labelled: Labelled, images: Images) -> Stress:
        """Degradations and attacks."""
        count = self.config.stress_images
        with self._progress("degrading, attacking", min(count, len(images.target))) as progress:
            return stress(
                models,
                labelled,
                images,
                teacher=self.teacher,
                kinds=self.config.degradation_kinds,
                attacks=self.attacks,
                num_images=count,
                batch_size=self.config.batch_size,
                workers=self.config.num_workers,
                progress=progress,
            )

    def _progress(self, what: str, total: int) -> Progress:
        return Progress(what, total=total, done=0, log_format=self.config.log_format)


def _foreign_tars(config: EvalConfig, labelled: Labelled) -> list[str]:
    """The tars of --ood-shards; UsageError where one is of the collection as well."""
    try:
        tars = expand(config.ood_shards, allow_pipe=config.allow_pipe)
    except UsageError as error:
        said = str(error).removeprefix("--shards: ")
        raise UsageError(f"--ood-shards: {said}") from None
    own = set(_places(labelled.urls.values()))
    both = [tar for tar, place in zip(tars, _places(tars), strict=True) if place in own]
    if both:
        raise UsageError(
            f"--ood-shards: wanted tars of other images, found {len(both)} that --shards names "
            f"too, the first is {redacted(both[0])}; name it once"
        )
    return tars


def _places(tars: Iterable[str]) -> list[str]:
    """Equal for equal tars, however they are written."""
    return [os.path.realpath(local_path(tar)) if is_local(tar) else tar for tar in tars]
