"""Tries a recipe and its usual mistakes on a few images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from softlabel.labeler.candidates import Candidate, candidates
from softlabel.labeler.evidence import (
    Evidence,
    gather_evidence,
    looks_like_probabilities,
    softmax,
)
from softlabel.labeler.graph import logits_graph
from softlabel.labeler.pixels import scale_and_bias
from softlabel.labeler.samples import Sample
from softlabel.labeler.teacher import Teacher
from softlabel.shards.decoders import Decoder, Picture
from softlabel.shards.errors import TeacherError
from softlabel.shards.recipe import Recipe
from softlabel.shards.views import View, view

_TOP = 5
_BATCH = 8
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An image as the teacher sees it under the given recipe, and what it answers."""

    sample: Sample
    pixels: NDArray[np.uint8]
    top: list[tuple[int, float]]
    """The likeliest classes with their probabilities."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What `check` found; the given recipe comes first in `results`."""

    shown: list[Shown]
    results: list[tuple[str, Evidence]]
    probabilities: bool
    """What was taken for logits has rows that sum to 1."""


def check(
    teacher: Teacher, recipe: Recipe, samples: Sequence[Sample], *, decoder: Decoder
) -> Checked:
    """Run the samples under the given recipe and under each usual mistake.

    Raises:
        TeacherError: onnxruntime can't run the teacher, or the recipe's size is not the teacher's.
    """
    runner = _Runner(teacher)
    takes_uint8 = teacher.element_type == onnx.TensorProto.UINT8
    targets = np.array([s.target if s.target < teacher.num_classes else -1 for s in samples])
    results: list[tuple[str, Evidence]] = []
    shown: list[Shown] = []
    probabilities = False
    for candidate in candidates(recipe, scalings=not takes_uint8):
        images = np.stack([_rendered(sample.picture, candidate, decoder) for sample in samples])
        logits = runner.logits(images, candidate.recipe)
        mirrored = runner.logits(images[:, :, ::-1], candidate.recipe)
        if not results:
            shown = _shown(samples, images, logits)
            probabilities = looks_like_probabilities(logits)
        results.append((candidate.name, gather_evidence(logits, mirrored, targets)))
    return Checked(shown=shown, results=results, probabilities=probabilities)


def _rendered(picture: Picture, candidate: Candidate, decoder: Decoder) -> NDArray[np.uint8]:
    recipe = candidate.recipe
    _, height, width = recipe.input_size
    box = view(
        "center",
        seed=0,
        key_hash=0,
        number=0,
        height=picture.height,
        width=picture.width,
        crop_pct=recipe.crop_pct,
        crop_mode=recipe.crop_mode,
        target_height=height,
        target_width=width,
    )
    if candidate.antialias:
        return decoder.render(
            picture, box, height=height, width=width, interpolation=recipe.interpolation
        )
    return _without_antialias(decoder, picture, box, height, width)


def _without_antialias(
    decoder: Decoder, picture: Picture, box: View, height: int, width: int
) -> NDArray[np.uint8]:
    """Bilinear between the four nearest pixels, as OpenCV and older torchvision resize."""
    pixels = decoder.render(
        picture, box, height=box.height, width=box.width, interpolation="bilinear"
    ).astype(np.float64)
    for axis, size in ((0, height), (1, width)):
        place = (np.arange(size) + 0.5) * pixels.shape[axis] / size - 0.5
        place = np.clip(place, 0, pixels.shape[axis] - 1)
        low = place.astype(np.int64)
        high = np.minimum(low + 1, pixels.shape[axis] - 1)
        part = (place - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        pixels = pixels.take(low, axis) * (1 - part) + pixels.take(high, axis) * part
    return np.rint(pixels).astype(np.uint8)


def _shown(
    samples: Sequence[Sample], images: NDArray[np.uint8], logits: NDArray[np.float32]
) -> list[Shown]:
    shown = []
    for sample, pixels, p in zip(samples, images, softmax(logits), strict=True):
        top = np.argsort(-p, kind="stable")[:_TOP]
        shown.append(Shown(sample=sample, pixels=pixels, top=[(int(c), float(p[c])) for c in top]))
    return shown


class _Runner:
    """The teacher alone on the CPU, in batches of one size."""

    def __init__(self, teacher: Teacher) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(teacher.path.parent))
        graph = logits_graph(teacher).SerializeToString()
        try:
            self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds share no other base
            raise TeacherError(f"{teacher.path}: onnxruntime can't load it: {error}") from None
        self._batch = teacher.batch_size or _BATCH

    def logits(self, images: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.float32]:
        """[N, C] for images [N, H, W, 3] RGB, the last batch filled up with zeros."""
        scale, bias = scale_and_bias(recipe)
        ordered = images[..., ::-1] if recipe.channels == "bgr" else images
        pixels = ordered.astype(np.float32) * scale + bias
        parts = []
        for start in range(0, len(pixels), self._batch):
            batch = pixels[start : start + self._batch]
            missing = self._batch - len(batch)
            batch = np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0)))
            (logits,) = self._session.run(["logits"], {"pixels": batch})
            parts.append(logits[: self._batch - missing])
        return np.concatenate(parts)
