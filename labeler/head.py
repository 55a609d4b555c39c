"""The teacher's last linear layer, which turns a stored embedding back into logits."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from softlabel.labeler.endings import RESHAPING, ending
from softlabel.labeler.surgery import attribute, follow_up, producers
from softlabel.labeler.teacher import Teacher, read_model
from softlabel.labeler.weights import values_of

_Head = tuple[NDArray[np.float32], NDArray[np.float32]]


def head_of(teacher: Teacher) -> _Head | None:
    """Weight [C, D] and bias [C] with logits = embedding @ weight.T + bias, both float32.

    None if the teacher was opened without an embedding, or if anything but one linear layer (Gemm,
    MatMul, 1x1 Conv on a pooled map, each with or without Add) lies between it and the logits.
    """
    if teacher.embedding_name is None:
        return None
    model = read_model(teacher.path)
    logits = ending(model.graph, teacher.output_name).source
    return _Linear(model, teacher).head(logits, teacher.embedding_name)


class _Linear:
    """Reads one model's last layer."""

    def __init__(self, model: onnx.ModelProto, teacher: Teacher) -> None:
        self._teacher = teacher
        self._makers: Mapping[str, onnx.NodeProto] = producers(model.graph)
        self._weights = {weight.name: weight for weight in model.graph.initializer}

    def head(self, logits: str, embedding: str) -> _Head | None:
        C, D = self._teacher.num_classes, self._teacher.embedding_dim
        name, bias = self._without_bias(self._upstream(logits))
        node = self._makers.get(name)
        if (
            node is None
            or len(node.input) < 2
            or self._upstream(node.input[0]) != self._upstream(embedding)
        ):
            return None
        read = {"Gemm": self._gemm, "MatMul": self._matmul, "Conv": self._conv}.get(node.op_type)
        if read is None or (found := read(node)) is None:
            return None
        weight, own_bias = found
        if weight.shape != (C, D) or any(np.size(b) not in (1, C) for b in (bias, own_bias)):
            return None
        total = np.broadcast_to(np.ravel(bias) + np.ravel(own_bias), C)
        return weight.astype(np.float32), total.astype(np.float32)

    def _upstream(self, name: str) -> str:
        return follow_up(name, self._makers, RESHAPING)[0]

    def _without_bias(self, name: str) -> tuple[str, NDArray[Any]]:
        """Past an Add of a constant: the tensor it is added to, and the constant."""
        node = self._makers.get(name)
        if node is not None and node.op_type == "Add":
            for tensor, other in (tuple(node.input), tuple(node.input)[::-1]):
                if (bias := self._constant(other)) is not None:
                    return self._upstream(tensor), bias
        return name, np.zeros(1)

    def _gemm(self, node: onnx.NodeProto) -> tuple[NDArray[Any], NDArray[Any]] | None:
        weight = self._constant(node.input[1])
        bias = self._constant(node.input[2]) if len(node.input) > 2 else np.zeros(1)
        if weight is None or bias is None or attribute(node, "transA", default=0):
            return None
        scale = {a.name: a.f for a in node.attribute if a.name in {"alpha", "beta"}}
        weight = weight if attribute(node, "transB", default=0) else weight.T
        return weight * scale.get("alpha", 1.0), bias * scale.get("beta", 1.0)

    def _matmul(self, node: onnx.NodeProto) -> tuple[NDArray[Any], NDArray[Any]] | None:
        weight = self._constant(node.input[1])
        return None if weight is None else (weight.T, np.zeros(1))

    def _conv(self, node: onnx.NodeProto) -> tuple[NDArray[Any], NDArray[Any]] | None:
        weight = self._constant(node.input[1])
        bias = self._constant(node.input[2]) if len(node.input) > 2 else np.zeros(1)
        padded = any(a.name == "pads" and any(a.ints) for a in node.attribute)
        if weight is None or bias is None or weight.shape[2:] != (1, 1) or padded:
            return None
        return weight[:, :, 0, 0], bias

    def _constant(self, name: str) -> NDArray[Any] | None:
        """The values of a weight, also one that is transposed or cast on its way."""
        if name in self._weights:
            return values_of(self._weights[name], self._teacher.path)
        node = self._makers.get(name)
        if node is None:
            return None
        if node.op_type == "Constant":
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
            return None if tensor is None else values_of(tensor, self._teacher.path)
        if node.op_type not in {"Transpose", "Identity", "Cast"}:
            return None
        values = self._constant(node.input[0])
        turned = values is not None and node.op_type == "Transpose" and values.ndim == 2
        return values.T if turned and values is not None else values
