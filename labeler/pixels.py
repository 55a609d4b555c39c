"""The first nodes of the labelling graph: uint8 pixels to what the teacher takes."""

import numpy as np
import onnx
from numpy.typing import NDArray

from softlabel.labeler.nodes import Nodes
from softlabel.labeler.teacher import Teacher
from softlabel.shards.errors import TeacherError
from softlabel.shards.recipe import Recipe


def scale_and_bias(recipe: Recipe) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Normalisation as x * scale + bias on pixels x in 0..255, a value a channel of the teacher.

    (x / 255 - mean) / std in exact arithmetic, each constant rounded once to float32. timm divides,
    subtracts and divides in float32: the two differ by rounding only, less than 4e-7 of the
    largest value that the channel can take.
    """
    mean, std = np.array(recipe.mean, np.float64), np.array(recipe.std, np.float64)
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def add_pixels(nodes: Nodes, image: str, teacher: Teacher, recipe: Recipe) -> str:
    """Nodes from the uint8 image to the teacher's normalised input, in float32.

    Raises:
        TeacherError: the teacher takes uint8, so normalises by itself, but the recipe does it too.
    """
    scale, bias = scale_and_bias(recipe)
    if teacher.element_type == onnx.TensorProto.UINT8 and not _is_raw(scale, bias):
        raise TeacherError(
            f"{teacher.path} takes uint8 pixels and so normalises them itself: wanted a recipe "
            f"with mean 0 and std 1/255 (0.00392156862745098), found mean {recipe.mean} and "
            f"std {recipe.std}"
        )
    # Cast, then Transpose: onnxruntime moves float32 faster than uint8.
    x = nodes.add("Cast", image, to=onnx.TensorProto.FLOAT)
    x = add_layout(nodes, x, teacher, reverse=recipe.channels == "bgr")
    if _is_raw(scale, bias):
        return x
    shape = (1, 1, 1, 3) if teacher.channels_last else (1, 3, 1, 1)
    x = nodes.add("Mul", x, nodes.constant(scale.reshape(shape)))
    return nodes.add("Add", x, nodes.constant(bias.reshape(shape)))


def add_layout(nodes: Nodes, pixels: str, teacher: Teacher, *, reverse: bool = False) -> str:
    """Nodes from [N, H, W, 3] to the teacher's layout, the three channels reversed if asked."""
    if teacher.channels_last:
        if not reverse:
            return pixels
        # A product with a permutation is exact, and Gather on the last axis copies byte by byte.
        return nodes.add("MatMul", pixels, nodes.constant(np.eye(3)[::-1]))
    x = nodes.add("Transpose", pixels, perm=[0, 3, 1, 2])
    return nodes.add("Gather", x, nodes.constant([2, 1, 0], np.int64), axis=1) if reverse else x


def _is_raw(scale: NDArray[np.float32], bias: NDArray[np.float32]) -> bool:
    return bool((scale == 1).all() and (bias == 0).all())
