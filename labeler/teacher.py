"""An ONNX file looked at without running it: can it serve as a teacher, and what does it give?"""

from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from softlabel.labeler.endings import Kind, ending
from softlabel.labeler.metadata import recorded_class_names, recorded_recipe
from softlabel.labeler.shapes import Shape, Shapes, Value
from softlabel.labeler.surgery import attribute, opset_of
from softlabel.labeler.weights import external_files, fingerprint
from softlabel.shards.errors import TeacherError
from softlabel.shards.recipe import Recipe

_FLOATS = frozenset({"FLOAT", "FLOAT16", "DOUBLE", "BFLOAT16"})
_PIXELS = _FLOATS | {"UINT8"}


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """What an ONNX file says of itself.

    `sha256` covers the file and its external data. `height`, `width` and `batch_size` are None
    where the graph leaves them open. `output_kind` is "softmax-removed" where the output is a
    softmax (its input is taken), "probabilities" where it is a sigmoid or the like (the logarithm
    is taken), else "logits"; see `endings.ending` for what can be told.
    """

    path: Path
    sha256: str
    input_name: str
    output_name: str
    embedding_name: str | None
    num_classes: int
    embedding_dim: int | None
    batch_size: int | None
    height: int | None
    width: int | None
    output_kind: Kind
    recipe: Recipe | None
    class_names: tuple[str, ...] | None
    element_type: int = onnx.TensorProto.FLOAT
    """ONNX type of the image input; the logits are cast to float32 whatever the body's type."""
    channels_last: bool = False
    """The image input is [N, H, W, 3] instead of [N, 3, H, W]."""
    data_files: tuple[str, ...] = ()
    """External data files, relative to the folder of `path`."""


def open_teacher(path: Path, *, output: str | None = None, embedding: str | None = None) -> Teacher:
    """Look at an ONNX image classifier.

    Args:
        path: the ONNX file; its external data must lie in the same folder or below.
        output: which output holds the logits; default the only [N, C] one, or the one of them
            that is named `logits`.
        embedding: an output or inner tensor [N, D] (or [N, D, 1, 1]) to label with as well.

    Raises:
        TeacherError: the file cannot serve; in one line what was wanted, what was found.
    """
    model = read_model(path)
    files = external_files(model, path)
    shapes = Shapes(model)
    image = _image_input(model, path)
    name, num_classes = _class_output(model, shapes, path, asked=output, embedding=embedding)
    end = ending(model.graph, name)
    if end.softmax is not None:
        _check_softmax(end.softmax, shapes, model, path, num_classes)
    batch = image.shape[0] or (shapes.of(name).shape or (None,))[0]
    layout = image.shape[1:3] if image.channels_last else image.shape[2:4]
    return Teacher(
        path=path,
        sha256=fingerprint(path, files),
        input_name=image.name,
        output_name=name,
        embedding_name=embedding,
        num_classes=num_classes,
        embedding_dim=None if embedding is None else _embedding_dim(shapes, embedding, model, path),
        batch_size=batch,
        height=layout[0],
        width=layout[1],
        output_kind=end.kind,
        recipe=recorded_recipe(model, path),
        class_names=recorded_class_names(model, path, num_classes),
        element_type=image.element_type,
        channels_last=image.channels_last,
        data_files=tuple(sorted(files)),
    )


def read_model(path: Path) -> onnx.ModelProto:
    """The model without its external data.

    Raises:
        TeacherError: no such file, or not an ONNX model.
    """
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise TeacherError(f"wanted an ONNX file, {path} can't be read: {error.strerror}") from None
    except DecodeError:
        raise TeacherError(f"wanted an ONNX file, {path} is none, or was cut short") from None
    if not model.graph.output:
        raise TeacherError(f"wanted an ONNX file, {path} holds no graph with an output")
    return model


@dataclass(frozen=True, kw_only=True)
class _Image:
    name: str
    element_type: int
    shape: Shape
    channels_last: bool


def _image_input(model: onnx.ModelProto, path: Path) -> _Image:
    # Before IR version 4 weights stood among the inputs too.
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        raise TeacherError(f"{path}: wanted one image input, found {len(inputs)}: {names}")
    name = inputs[0].name
    value = Shapes(model).of(name)
    if (value.shape is None) or len(value.shape) != 4 or _type(value) not in _PIXELS:
        raise TeacherError(
            f"{path}: wanted an image input [N, 3, H, W] or [N, H, W, 3] of float or uint8, found "
            f"{_described(name, value)}"
        )
    if 3 not in (value.shape[1], value.shape[3]):
        raise TeacherError(
            f"{path}: wanted an image input with 3 channels at a fixed place, [N, 3, H, W] or "
            f"[N, H, W, 3], found {_described(name, value)}"
        )
    last = value.shape[1] != 3
    return _Image(name=name, element_type=value.element_type, shape=value.shape, channels_last=last)


def _class_output(
    model: onnx.ModelProto, shapes: Shapes, path: Path, *, asked: str | None, embedding: str | None
) -> tuple[str, int]:
    """Name and number of classes of the output that holds the logits."""
    found = {value.name: shapes.of(value.name) for value in model.graph.output}
    listing = ", ".join(_described(name, value) for name, value in found.items())
    if asked is not None:
        if asked not in found:
            raise TeacherError(f"{path}: has no output {asked!r}; its outputs are {listing}")
        fitting = [asked]
    else:
        fitting = [name for name, value in found.items() if _is_rows(value)]
    if len(fitting) > 1 and embedding in fitting:
        fitting.remove(embedding)
    if len(fitting) > 1 and "logits" in fitting:
        fitting = ["logits"]
    if len(fitting) > 1:
        raise TeacherError(
            f"{path}: several outputs may hold the logits; name one with --output: {listing}"
        )
    if not fitting or not _is_rows(found[fitting[0]]):
        raise TeacherError(
            f"{path}: wanted an output (N, C) of float logits with C >= 2 known, found {listing}"
        )
    shape = found[fitting[0]].shape
    assert shape is not None
    assert shape[1] is not None
    return fitting[0], shape[1]


def _is_rows(value: Value) -> bool:
    """Whether a tensor is (N, C) with a known number of classes, at least two."""
    shape = value.shape
    return _type(value) in _FLOATS and shape is not None and len(shape) == 2 and (shape[1] or 0) > 1


def _check_softmax(
    node: onnx.NodeProto, shapes: Shapes, model: onnx.ModelProto, path: Path, num_classes: int
) -> None:
    """Refuse a softmax over anything but the classes."""
    shape = shapes.of(node.input[0]).shape
    if node.op_type != "Softmax" or shape is None:
        return
    coerced = opset_of(model) < 13  # such a softmax runs over its axis and all that follow
    axis = attribute(node, "axis", default=1 if coerced else -1) % len(shape)
    sizes = shape[axis:] if coerced else shape[axis : axis + 1]
    over = 1
    for size in sizes:
        over *= size or num_classes
    if over != num_classes or axis == 0:
        raise TeacherError(
            f"{path}: wanted a softmax over the {num_classes} classes at the output, found one "
            f"over axis {axis} of {_described(node.input[0], shapes.of(node.input[0]))}"
        )


def _embedding_dim(shapes: Shapes, name: str, model: onnx.ModelProto, path: Path) -> int:
    value = shapes.of(name)
    shape = value.shape or ()
    pooled = len(shape) == 4 and shape[2:] == (1, 1)
    if _type(value) in _FLOATS and (len(shape) == 2 or pooled) and shape[1]:
        return shape[1]
    outputs = ", ".join(_described(v.name, shapes.of(v.name)) for v in model.graph.output)
    raise TeacherError(
        f"{path}: wanted an embedding [N, D] of floats, found {_described(name, value)}; "
        f"the outputs are {outputs}"
    )


def _type(value: Value) -> str:
    return str(onnx.TensorProto.DataType.Name(value.element_type))


def _described(name: str, value: Value) -> str:
    if value.shape is None:
        return f"{name} ({_type(value).lower()}, of unknown shape)"
    sizes = ", ".join("?" if size is None else str(size) for size in value.shape)
    return f"{name} ({_type(value).lower()} [{sizes}])"
