"""Reading and changing an ONNX graph: who makes a tensor, what is needed, what it is called."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import onnx


def producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Tensor name -> the node that makes it; graph inputs and weights have none."""
    return {name: node for node in graph.node for name in node.output if name}


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan; other nodes have none."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def follow_up(
    name: str, makers: Mapping[str, onnx.NodeProto], through: Iterable[str]
) -> tuple[str, list[onnx.NodeProto]]:
    """Go from a tensor towards the input while its maker is one of the operators `through`.

    Returns:
        The tensor arrived at, and the nodes passed, the one nearest to `name` first.
    """
    passed = []
    while (node := makers.get(name)) is not None and node.op_type in through:
        passed.append(node)
        name = node.input[0]
    return name, passed


def prune(graph: onnx.GraphProto, outputs: Iterable[str]) -> None:
    """Drop the nodes and weights that none of the named tensors needs."""
    needed = set(outputs)
    for position in reversed(range(len(graph.node))):
        node = graph.node[position]
        if any(name in needed for name in node.output):
            needed.update(_used_names(node))
        else:
            del graph.node[position]
    for position in reversed(range(len(graph.initializer))):
        if graph.initializer[position].name not in needed:
            del graph.initializer[position]


def _used_names(node: onnx.NodeProto) -> Iterator[str]:
    """The tensors a node reads, those that its bodies take from outside included."""
    yield from (name for name in node.input if name)
    for body in subgraphs(node):
        for inner in body.node:
            yield from _used_names(inner)
        yield from (value.name for value in body.output)


def rename(graph: onnx.GraphProto, new_name: Callable[[str], str]) -> None:
    """Give every tensor of the graph and of its bodies the name that `new_name` returns."""
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name:
                    names[position] = new_name(name)
        for body in subgraphs(node):
            rename(body, new_name)
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        for value in values:
            value.name = new_name(value.name)
    for sparse in graph.sparse_initializer:
        sparse.values.name = new_name(sparse.values.name)


def attribute(node: onnx.NodeProto, name: str, *, default: int) -> int:
    """An integer attribute of a node, or what the operator takes without it."""
    return next((int(found.i) for found in node.attribute if found.name == name), default)


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators that the model is written in."""
    standard = (entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"})
    return int(max(standard, default=1))
