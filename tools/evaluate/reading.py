"""Labelled images out of their tars, as a model sees them: batch by batch, some read ahead."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from softlabel.shards.decoders import Decoder, open_decoder
from softlabel.shards.recipe import Recipe
from softlabel.tools.evaluate.teacher_labels import Labelled
from softlabel.tools.evaluate.teacher_rows import TeacherRows
from softlabel.trainer.labels import LabelledRows
from softlabel.trainer.rendering import Renderer
from softlabel.trainer.tar_files import TarFiles

_CACHE_BYTES = 32 << 30
_AHEAD = 2
_CHUNK_IMAGES = 16

Members = Mapping[int, NDArray[np.int64]]
"""Some images: for some tars, by ordinal in the store, ascending ordinals of members."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """A batch: what the store says of it, and the pixels for each renderer."""

    teacher: TeacherRows
    pixels: Mapping[Renderer, NDArray[np.uint8]]
    """[N, H, W, 3] RGB of each."""

    @property
    def rows(self) -> LabelledRows:
        """What is known of the images but the pixels."""
        return self.teacher.rows


@dataclass(frozen=True, kw_only=True, slots=True)
class _Begun:
    """A batch at work: its pixels are there once all that is rendering has ended."""

    pictures: Pictures
    rendering: Sequence[Future[None]]


class PictureReader:
    """Reads and renders labelled images in threads; to be closed.

    Errors, while batches are read:
        IdentityError: an image is not the one that was labelled.
        MachineError: a decoder can't decode what the labeler could.
        TarError: a tar can't be read.
    """

    def __init__(self, labelled: Labelled, *, workers: int) -> None:
        self._labelled = labelled
        self._files = TarFiles(
            labelled.urls,
            {tar: commit.tar_size for tar, commit in labelled.commits.items()},
            cache_dir=None,
            cache_bytes=_CACHE_BYTES,
        )
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._decoders: dict[str, Decoder] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._files.close()

    def renderer(self, recipe: Recipe, *, decoder: str | None = None) -> Renderer:
        """The centre view as a recipe has it; equal for recipes that show the same.

        Args:
            recipe: of a model.
            decoder: its name; None is the one of the labels.

        Raises:
            MachineError: the decoder is missing here.
        """
        manifest = self._labelled.store.manifest
        name = decoder or manifest.decoder
        if name not in self._decoders:
            self._decoders[name] = open_decoder(name, max_pixels=manifest.max_image_pixels)
        return Renderer(
            decoder=self._decoders[name],
            view_recipe="center",
            view_seed=0,
            # Mean and std come later, on the device: they don't make another view.
            teacher=replace(recipe, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
            height=recipe.height,
            width=recipe.width,
            interpolation=recipe.interpolation,
            files=self._files,
        )

    def batches(
        self, renderers: Sequence[Renderer], *, batch_size: int, members: Members | None = None
    ) -> Iterator[Pictures]:
        """All labelled images, or some, in the order of the store; no batch has two tars."""
        distinct = list(dict.fromkeys(renderers))
        begun: deque[_Begun] = deque()
        for work in self._begun(distinct, batch_size, members):
            begun.append(work)
            if len(begun) > _AHEAD:
                yield _finished(begun.popleft())
        while begun:
            yield _finished(begun.popleft())

    def _begun(
        self, renderers: Sequence[Renderer], batch_size: int, members: Members | None
    ) -> Iterator[_Begun]:
        tars = list(self._labelled.urls if members is None else members)
        for i, tar in enumerate(tars):
            self._files.expect(tars[max(i - _AHEAD, 0) : i + 2])
            found = self._labelled.rows(tar)
            if members is not None:
                found = found.take(np.flatnonzero(np.isin(found.rows.member, members[tar])))
            for low in range(0, len(found.rows), batch_size):
                yield self._begin(found.take(slice(low, low + batch_size)), renderers)

    def _begin(self, batch: TeacherRows, renderers: Sequence[Renderer]) -> _Begun:
        N = len(batch.rows)
        pixels = {r: np.empty((N, r.height, r.width, 3), np.uint8) for r in renderers}
        rendering = []
        for low in range(0, N, _CHUNK_IMAGES):
            chunk = slice(low, low + _CHUNK_IMAGES)
            outs = {renderer: out[chunk] for renderer, out in pixels.items()}
            rendering.append(self._pool.submit(_render, batch.rows.take(chunk), outs))
        return _Begun(pictures=Pictures(teacher=batch, pixels=pixels), rendering=rendering)


def _render(rows: LabelledRows, outs: Mapping[Renderer, NDArray[np.uint8]]) -> None:
    encoded = None
    for renderer, out in outs.items():
        if encoded is None:
            encoded = renderer.files.read(int(rows.tar[0]), rows.offset, rows.size)
        renderer.render(encoded, rows, rows.view, out)


def _finished(work: _Begun) -> Pictures:
    for part in work.rendering:
        part.result()
    return work.pictures
