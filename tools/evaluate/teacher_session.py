"""The ONNX teacher, asked about images that no store has labels of."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.labeler.graph import prepare
from softlabel.labeler.session import TeacherSession, num_cores, resolve_provider
from softlabel.labeler.teacher import Teacher, open_teacher
from softlabel.shards.cache import cache_folder
from softlabel.shards.errors import IdentityError, TeacherError
from softlabel.shards.recipe import Recipe
from softlabel.shards.schema import Manifest

BATCH_SIZE = 16
"""Images a call where the graph leaves it open; fixed, so that no answer depends on its batch."""

Answer = tuple[NDArray[np.float32], NDArray[np.float32] | None]


class TeacherOnImages:
    """A teacher behind the labeler's own graph: what it says here is what a label would say.

    N images, C classes, D embedding width.
    """

    def __init__(self, teacher: Teacher, recipe: Recipe, *, provider: str, threads: int) -> None:
        self._teacher = teacher
        self.recipe = recipe
        graph = prepare(
            teacher,
            recipe,
            top_k=teacher.num_classes,
            temperatures=(1.0,),
            cache_dir=cache_folder() / "graphs",
        )
        self._session = TeacherSession(graph, provider=resolve_provider(provider), threads=threads)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        recipe: Recipe,
        output: str | None = None,
        embedding: str | None = None,
        provider: str = "auto",
        threads: int | None = None,
    ) -> "TeacherOnImages":
        """Load a teacher.

        Args:
            path: the ONNX file.
            recipe: its preprocessing.
            output: which output holds the logits, as `open_teacher` has it.
            embedding: an output or inner tensor to give as well.
            provider: auto, cpu, cuda or tensorrt.
            threads: of the CPU provider; None is one a core.

        Raises:
            TeacherError: the file can't serve, or the recipe doesn't fit.
            MachineError: the provider does not run here.
        """
        teacher = open_teacher(path, output=output, embedding=embedding)
        return cls(teacher, recipe, provider=provider, threads=threads or num_cores())

    @classmethod
    def of_labels(
        cls,
        path: Path,
        manifest: Manifest,
        *,
        provider: str = "auto",
        threads: int | None = None,
    ) -> "TeacherOnImages":
        """Load the teacher that made some labels, with the recipe and outputs they were made with.

        Raises:
            IdentityError: `path` is another teacher.
            TeacherError, MachineError: as `open`.
        """
        found = cls.open(
            path,
            recipe=Recipe.from_dict(manifest.recipe, source="the store's recipe"),
            output=manifest.teacher_output,
            embedding=manifest.embedding_output,
            provider=provider,
            threads=threads,
        )
        if found.sha256 != manifest.teacher_sha256:
            raise IdentityError(
                f"--teacher {path}: has sha256 {found.sha256[:12]}, the labels were made by "
                f"{manifest.teacher_sha256[:12]}; name that teacher, or label again"
            )
        return found

    @property
    def sha256(self) -> str:
        """Of the file and its external data."""
        return self._teacher.sha256

    @property
    def num_classes(self) -> int:
        """C"""
        return self._teacher.num_classes

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images it takes."""
        return self.recipe.height, self.recipe.width

    def answer(self, images: NDArray[np.uint8]) -> Answer:
        """Logits [N, C], and the embedding [N, D] if the teacher was opened with one.

        A logit more than 65,504 below the largest is raised to that, as in a label.

        Args:
            images: [N, height, width, 3] RGB at the teacher's size.

        Raises:
            ValueError: another shape.
            TeacherError: a logit is not finite.
        """
        if images.shape[1:] != (*self.size, 3):
            raise ValueError(f"wanted images [N, {self.size[0]}, {self.size[1]}, 3] of uint8, got "
                             f"{list(images.shape)}")  # fmt: skip
        if not len(images):
            return np.zeros((0, self.num_classes), np.float32), self._no_embedding()
        found = self._session.run_padded(images, batch_size=self._teacher.batch_size or BATCH_SIZE)
        if not found["finite"].all():
            raise TeacherError(
                f"{self._teacher.path}: wanted finite logits, found others for "
                f"{int((~found['finite']).sum())} of {len(images)} images"
            )
        return _logits(found), found.get("embedding")

    def logits(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As `answer`, the logits alone."""
        return self.answer(images)[0]

    def _no_embedding(self) -> NDArray[np.float32] | None:
        D = self._teacher.embedding_dim
        return None if D is None else np.zeros((0, D), np.float32)


def _logits(labels: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The labels' relative logits in the order of classes, their largest added again."""
    logits = np.empty_like(labels["topk_logit"])
    absolute = labels["topk_logit"] + labels["max_logit"][:, None]
    np.put_along_axis(logits, labels["topk_class"], absolute, 1)
    return logits
