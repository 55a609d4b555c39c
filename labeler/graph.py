"""The labelling graph: a teacher that takes uint8 images and gives what the store keeps."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import TensorProto
from onnx.helper import make_tensor_value_info

from softlabel.labeler.body import add_logits, assembled, feed, inner_name, read_body
from softlabel.labeler.labels import add_labels
from softlabel.labeler.nodes import Nodes
from softlabel.labeler.pixels import add_layout, add_pixels
from softlabel.labeler.surgery import opset_of
from softlabel.labeler.teacher import Teacher, read_model
from softlabel.labeler.weights import copy_files, external_files, fingerprint, write_whole
from softlabel.shards.errors import MachineError, TeacherError
from softlabel.shards.recipe import Recipe

_OWN_CODE = ("body", "endings", "graph", "labels", "nodes", "pixels", "surgery")


def labelling_graph(
    teacher: Teacher, recipe: Recipe, *, top_k: int, temperatures: Sequence[float]
) -> onnx.ModelProto:
    """The teacher with pre-processing and label making inside; its body's arithmetic is untouched.

    Input `image`: uint8 [N, H, W, 3] RGB, N as baked into the teacher where it is. Outputs:

        topk_logit  float32 [N, K]  z - z_max of the K largest, descending, clamped at -65504
        topk_class  int64 [N, K]    their classes; equal logits: the lower class first
        tail_lse    float32 [N, S]  log(sum(exp((z - z_max) / t))) over the others; -inf if K = C
        max_logit   float32 [N]     z_max
        finite      bool [N]        False: some logit was NaN or infinite, the rest means nothing
        embedding   float32 [N, D]  if the teacher was opened with one

    The order of equal logits is what ONNX demands of TopK; onnxruntime's CPU provider keeps to it.
    External data stays where it is: the graph's references are those of `teacher.path`.

    Args:
        top_k: K, from 1 to the number of classes.
        temperatures: S temperatures, each > 0.

    Raises:
        TeacherError: the teacher and the recipe don't fit, or the opset can't be used.
    """
    if not 1 <= top_k <= teacher.num_classes:
        raise ValueError(f"top_k must be 1 to {teacher.num_classes}, got {top_k}")
    if not temperatures or not all(0 < t < float("inf") for t in temperatures):
        raise ValueError(f"temperatures must be positive, got {tuple(temperatures)}")
    size = _image_size(teacher, recipe)
    model = read_body(teacher)
    before, after = _nodes(model)
    feed(before, model, teacher, add_pixels(before, "image", teacher, recipe))
    logits = add_logits(after, model, teacher)
    add_labels(
        after, logits, num_classes=teacher.num_classes, top_k=top_k, temperatures=temperatures
    )
    if teacher.embedding_name is not None:
        rows = after.reshape(inner_name(teacher.embedding_name), (-1, teacher.embedding_dim or -1))
        after.add("Cast", rows, to=TensorProto.FLOAT, output="embedding")
    image = make_tensor_value_info(
        "image", TensorProto.UINT8, [teacher.batch_size or "N", *size, 3]
    )
    outputs = _outputs(teacher, top_k, len(temperatures))
    return assembled(model, before, after, inputs=[image], outputs=outputs)


def _outputs(teacher: Teacher, K: int, S: int) -> list[onnx.ValueInfoProto]:
    N, D = teacher.batch_size or "N", teacher.embedding_dim or "D"
    shapes = {
        "topk_logit": (TensorProto.FLOAT, [N, K]),
        "topk_class": (TensorProto.INT64, [N, K]),
        "tail_lse": (TensorProto.FLOAT, [N, S]),
        "max_logit": (TensorProto.FLOAT, [N]),
        "finite": (TensorProto.BOOL, [N]),
    }
    if teacher.embedding_name is not None:
        shapes["embedding"] = (TensorProto.FLOAT, [N, D])
    return [make_tensor_value_info(name, *shape) for name, shape in shapes.items()]


def logits_graph(teacher: Teacher) -> onnx.ModelProto:
    """The teacher without its recipe, to try others on it.

    Input `pixels`: float32 [N, H, W, 3], normalised, channels in the teacher's order. Output
    `logits`: float32 [N, C], the very ones that `labelling_graph` makes labels of.
    """
    model = read_body(teacher)
    before, after = _nodes(model)
    feed(before, model, teacher, add_layout(before, "pixels", teacher))
    after.add("Identity", add_logits(after, model, teacher), output="logits")
    N = teacher.batch_size or "N"
    shape = [N, teacher.height or "H", teacher.width or "W", 3]
    pixels = make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
    logits = make_tensor_value_info("logits", TensorProto.FLOAT, [N, teacher.num_classes])
    return assembled(model, before, after, inputs=[pixels], outputs=[logits])


def _nodes(model: onnx.ModelProto) -> tuple[Nodes, Nodes]:
    opset = opset_of(model)
    return Nodes(opset, prefix="in-"), Nodes(opset, prefix="out-")


def _image_size(teacher: Teacher, recipe: Recipe) -> tuple[int, int]:
    """Height and width of the images to feed."""
    _, height, width = recipe.input_size
    if teacher.height not in (None, height) or teacher.width not in (None, width):
        raise TeacherError(
            f"{teacher.path} takes images of {teacher.height or 'any'} x {teacher.width or 'any'} "
            f"(height x width), the recipe says {height} x {width}: correct its input_size"
        )
    return height, width


def prepare(
    teacher: Teacher,
    recipe: Recipe,
    *,
    top_k: int,
    temperatures: Sequence[float],
    cache_dir: Path,
) -> Path:
    """The labelling graph as a file in `cache_dir`, written unless it is there already.

    Its name covers all that decides its content, this package's own code included, so a file found
    is never one of another teacher or recipe. The teacher's external data is copied beside it, once
    a teacher. A file appears whole or not at all; several processes may prepare the same one.

    Raises:
        TeacherError: as `labelling_graph`, or the file has changed since it was opened.
        MachineError: `cache_dir` can't be written.
    """
    folder = cache_dir / teacher.sha256
    path = folder / f"{_key(teacher, recipe, top_k, temperatures)}.onnx"
    if path.is_file() and all((folder / name).is_file() for name in teacher.data_files):
        return path
    model = labelling_graph(teacher, recipe, top_k=top_k, temperatures=temperatures)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copies = copy_files(external_files(read_model(teacher.path), teacher.path), folder)
        if fingerprint(teacher.path, copies) != teacher.sha256:
            for copy in copies.values():
                copy.unlink()
            raise TeacherError(f"{teacher.path} changed while it was read; run the command again")
        write_whole(path, model.SerializeToString(deterministic=True))
    except OSError as error:
        raise MachineError(f"the teacher's cache {folder} can't be written: {error}") from None
    return path


def _key(teacher: Teacher, recipe: Recipe, top_k: int, temperatures: Sequence[float]) -> str:
    """A name for everything that decides the bytes of a labelling graph."""
    code = hashlib.sha256()
    for module in _OWN_CODE:
        code.update((Path(__file__).parent / f"{module}.py").read_bytes())
    content = {
        "code": code.hexdigest(),
        "onnx": onnx.__version__,
        "teacher": teacher.sha256,
        "output": teacher.output_name,
        "embedding": teacher.embedding_name,
        "recipe": recipe.to_dict(),
        "top_k": top_k,
        "temperatures": list(temperatures),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
