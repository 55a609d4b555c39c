"""Every image through the models: what each said of it, and what the teacher had said."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.decoders import Decoder, open_decoder
from softlabel.shards.progress import Progress
from softlabel.tools.evaluate.metrics import Floats, first_classes, log_softmax, predictive_kl
from softlabel.tools.evaluate.models import Model
from softlabel.tools.evaluate.teacher_labels import Labelled
from softlabel.trainer.labels import LabelledRows
from softlabel.trainer.rendering import Renderer
from softlabel.trainer.tar_files import TarFiles

SHOWN_CLASSES = 5
_CACHE_BYTES = 32 << 30
_AHEAD = 2
_CHUNK_IMAGES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Where the images are, and what class they were given; [N] each."""

    tar: NDArray[np.int32]
    """Ordinal in the store."""
    member: NDArray[np.int32]
    """Ordinal in the tar."""
    target: NDArray[np.int64]
    """-1 without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """What one model says of N images: its first classes [N, 5 or less], in order."""

    classes: NDArray[np.int64]
    probability: Floats
    kl: Floats
    """[N] KL(teacher || model) in nats; 0 for the teacher."""

    @property
    def first(self) -> NDArray[np.int64]:
        """[N] predicted class."""
        return self.classes[:, 0]

    @property
    def confidence(self) -> Floats:
        """[N] probability of the predicted class."""
        return self.probability[:, 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """A batch at work: its labels, and for each renderer the pixels to come."""

    rows: LabelledRows
    head: Floats
    tail: Floats
    pixels: Sequence[NDArray[np.uint8]]
    rendered: Sequence[Future[None]]


def ask(
    models: Sequence[Model],
    labelled: Labelled,
    *,
    batch_size: int,
    workers: int,
    progress: Progress,
) -> tuple[Images, dict[str, Answers]]:
    """Show every labelled image to every model; answers by role, the teacher's among them.

    Each model sees the centre view of its own recipe.

    Raises:
        IdentityError: an image is not the one that was labelled.
        MachineError: a decoder is missing, or can't decode what the labeler could.
        TarError: a tar can't be read.
    """
    files = TarFiles(
        labelled.urls,
        {tar: commit.tar_size for tar, commit in labelled.commits.items()},
        cache_dir=None,
        cache_bytes=_CACHE_BYTES,
    )
    parts: list[tuple[Images, dict[str, Answers]]] = []
    done = 0
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            try:
                for part in _asked(models, labelled, files, pool, batch_size):
                    parts.append(part)
                    done += len(part[0].target)
                    progress.update(done, images=done, details={})
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
    finally:
        files.close()
    roles = ["teacher", *(model.role for model in models)]
    return _joined(Images, [images for images, _ in parts]), {
        role: _joined(Answers, [answers[role] for _, answers in parts]) for role in roles
    }


def _asked(
    models: Sequence[Model],
    labelled: Labelled,
    files: TarFiles,
    pool: ThreadPoolExecutor,
    batch_size: int,
) -> Iterator[tuple[Images, dict[str, Answers]]]:
    """A batch at a time."""
    renderers = _renderers(models, labelled, files)
    distinct = list(dict.fromkeys(renderers))
    for work in _batches(labelled, files, distinct, pool, batch_size):
        pixels = dict(zip(distinct, work.pixels, strict=True))
        answers = {"teacher": _teachers(work)}
        for model, renderer in zip(models, renderers, strict=True):
            answers[model.role] = _answers(model.logits(pixels[renderer]), work)
        yield _images(work.rows), answers


def _renderers(models: Sequence[Model], labelled: Labelled, files: TarFiles) -> list[Renderer]:
    """The centre view as each model's own recipe has it; equal for models that see the same."""
    manifest = labelled.store.manifest
    decoders: dict[str, Decoder] = {}
    renderers = []
    for model in models:
        recipe = model.described.recipe
        name = model.decoder or manifest.decoder
        if name not in decoders:
            decoders[name] = open_decoder(name, max_pixels=manifest.max_image_pixels)
        renderers.append(
            Renderer(
                decoder=decoders[name],
                view_recipe="center",
                view_seed=0,
                # Mean and std come later, on the device: they don't make another view.
                teacher=replace(recipe, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
                height=recipe.height,
                width=recipe.width,
                interpolation=recipe.interpolation,
                files=files,
            )
        )
    return renderers


def _batches(
    labelled: Labelled,
    files: TarFiles,
    renderers: Sequence[Renderer],
    pool: ThreadPoolExecutor,
    batch_size: int,
) -> Iterator[_Work]:
    """Batches with their pixels; some more are read and decoded meanwhile."""
    begun: deque[_Work] = deque()
    for work in _begun(labelled, files, renderers, pool, batch_size):
        begun.append(work)
        if len(begun) > _AHEAD:
            yield _finished(begun.popleft())
    while begun:
        yield _finished(begun.popleft())


def _begun(
    labelled: Labelled,
    files: TarFiles,
    renderers: Sequence[Renderer],
    pool: ThreadPoolExecutor,
    batch_size: int,
) -> Iterator[_Work]:
    tars = list(labelled.urls)
    for i, tar in enumerate(tars):
        files.expect(tars[max(i - _AHEAD, 0) : i + 2])
        rows, head, tail = labelled.rows(tar)
        for low in range(0, len(rows), batch_size):
            part = slice(low, low + batch_size)
            batch = rows.take(part)
            pixels = [np.empty((len(batch), r.height, r.width, 3), np.uint8) for r in renderers]
            rendered = [
                pool.submit(_render, batch.take(chunk), renderers, [p[chunk] for p in pixels])
                for chunk in _chunks(len(batch))
            ]
            yield _Work(
                rows=batch, head=head[part], tail=tail[part], pixels=pixels, rendered=rendered
            )


def _chunks(length: int) -> Iterator[slice]:
    for low in range(0, length, _CHUNK_IMAGES):
        yield slice(low, low + _CHUNK_IMAGES)


def _render(
    rows: LabelledRows, renderers: Sequence[Renderer], outs: Sequence[NDArray[np.uint8]]
) -> None:
    encoded = renderers[0].files.read(int(rows.tar[0]), rows.offset, rows.size)
    for renderer, out in zip(renderers, outs, strict=True):
        renderer.render(encoded, rows, rows.view, out)


def _finished(work: _Work) -> _Work:
    for part in work.rendered:
        part.result()
    return work


def _answers(logits: NDArray[np.float32], work: _Work) -> Answers:
    log_student = log_softmax(logits)
    classes, probability = first_classes(log_student, SHOWN_CLASSES)
    kl = predictive_kl(work.head, work.tail, work.rows.topk_class, log_student)
    return Answers(classes=classes, probability=probability, kl=kl)


def _teachers(work: _Work) -> Answers:
    return Answers(
        classes=work.rows.topk_class[:, :SHOWN_CLASSES].astype(np.int64),
        probability=work.head[:, :SHOWN_CLASSES],
        kl=np.zeros(len(work.rows)),
    )


def _images(rows: LabelledRows) -> Images:
    return Images(tar=rows.tar, member=rows.member, target=rows.target)


def _joined(kind: Any, parts: Sequence[Any]) -> Any:
    return kind(
        **{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(kind)}
    )
