"""The teacher's own part of a labelling graph: read, renamed out of our way, fed, cut to size."""

from collections.abc import Sequence

import onnx
from onnx import TensorProto

from softlabel.labeler.endings import ending
from softlabel.labeler.nodes import PREFIX, Nodes
from softlabel.labeler.surgery import opset_of, prune, rename
from softlabel.labeler.teacher import Teacher, read_model
from softlabel.shards.errors import TeacherError

SMALLEST_PROBABILITY = 1e-30
"""Probabilities below it count as this, before the logarithm."""

OLDEST_OPSET = 11
"""Of the operators that we add; an older teacher is converted, a newer one keeps its own."""

_CONVERTED_OPSET = 17
_OUTPUTS = {"topk_logit", "topk_class", "tail_lse", "max_logit", "finite", "embedding"}
_OURS = {"image", "pixels", "logits"} | _OUTPUTS


def inner_name(name: str) -> str:
    """What a tensor of the teacher is called in a labelling graph: as before, unless we need it."""
    return f"{PREFIX}teacher/{name}" if name in _OURS or name.startswith(PREFIX) else name


def read_body(teacher: Teacher) -> onnx.ModelProto:
    """The teacher's model with names that leave ours free, in an opset that we can write in.

    Raises:
        TeacherError: its opset is older than 11 and onnx can't convert it.
    """
    model = read_model(teacher.path)
    if (opset := opset_of(model)) < OLDEST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _CONVERTED_OPSET)
        except Exception as error:  # the converter raises bare RuntimeError and its own kinds
            raise TeacherError(
                f"{teacher.path}: wanted opset {OLDEST_OPSET} or newer, found {opset}, which can't "
                f"be converted ({error}); export the teacher again with a newer opset"
            ) from None
    rename(model.graph, inner_name)
    return model


def feed(nodes: Nodes, model: onnx.ModelProto, teacher: Teacher, pixels: str) -> None:
    """Let the teacher read `pixels` (float32, its layout) where it read its input."""
    nodes.add("Cast", pixels, to=teacher.element_type, output=inner_name(teacher.input_name))
    del model.graph.input[:]


def add_logits(nodes: Nodes, model: onnx.ModelProto, teacher: Teacher) -> str:
    """Nodes from the teacher's last tensor to float32 logits [N, C]; returns their name."""
    end = ending(model.graph, inner_name(teacher.output_name))
    name = end.source
    for step in end.steps:
        name = nodes.repeat(step, name)
    name = nodes.add("Cast", name, to=TensorProto.FLOAT)
    if end.kind == "probabilities":
        name = nodes.add("Max", name, nodes.constant(SMALLEST_PROBABILITY))
        name = nodes.add("Log", name)
    return nodes.reshape(name, (-1, teacher.num_classes))


def assembled(
    model: onnx.ModelProto,
    before: Nodes,
    after: Nodes,
    *,
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """The model between our nodes, without what the outputs don't need."""
    graph = model.graph
    body = list(graph.node)
    del graph.node[:], graph.output[:], graph.value_info[:]
    graph.node.extend([*before.nodes, *body, *after.nodes])
    graph.initializer.extend([*before.constants, *after.constants])
    graph.input.extend(inputs)
    graph.output.extend(outputs)
    prune(graph, [output.name for output in outputs])
    # From version 4 on weights need not stand among the inputs, where they could not be folded.
    model.ir_version = max(model.ir_version, 7)
    return model
