"""Writes ONNX nodes one after another, each named after the one tensor it makes."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import helper, numpy_helper

PREFIX = "softlabel/"
"""Begins the name of every tensor that is ours and no output."""


class Nodes:
    """Nodes and constants, to be put into a graph. Operators are written as in opset 11 to 25."""

    def __init__(self, opset: int, *, prefix: str) -> None:
        """`prefix` keeps the names of two `Nodes` in one graph apart."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._opset = opset
        self._prefix = f"{PREFIX}{prefix}"

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node with one output; returns the output's name."""
        name = output or f"{self._prefix}{len(self.nodes)}-{operator}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: ArrayLike, dtype: DTypeLike = np.float32) -> str:
        """A constant tensor; returns its name."""
        name = f"{self._prefix}constant-{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def reduce(self, operator: str, tensor: str, *, axis: int) -> str:
        """ReduceSum or ReduceMax over one axis, which stays with size 1."""
        axes_are_input = self._opset >= {"ReduceSum": 13, "ReduceMax": 18}[operator]
        if axes_are_input:
            return self.add(operator, tensor, self.constant([axis], np.int64), keepdims=1)
        return self.add(operator, tensor, axes=[axis], keepdims=1)

    def columns(self, tensor: str, start: int, stop: int) -> str:
        """Columns [start, stop) of a matrix."""
        bounds = [self.constant([bound], np.int64) for bound in (start, stop, 1)]
        return self.add("Slice", tensor, *bounds)

    def reshape(self, tensor: str, shape: tuple[int, ...], *, output: str | None = None) -> str:
        """The tensor in another shape; -1 is worked out."""
        return self.add("Reshape", tensor, self.constant(shape, np.int64), output=output)

    def top(self, tensor: str, k: int) -> tuple[str, str]:
        """The k largest of each row, descending, and their places; equal ones by place."""
        name = f"{self._prefix}{len(self.nodes)}-TopK"
        outputs = (f"{name}-values", f"{name}-places")
        inputs = [tensor, self.constant([k], np.int64)]
        node = helper.make_node("TopK", inputs, outputs, name=name, axis=1, largest=1, sorted=1)
        self.nodes.append(node)
        return outputs

    def repeat(self, node: onnx.NodeProto, tensor: str) -> str:
        """The same operator on another first input; returns the output's name."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        name = f"{self._prefix}{len(self.nodes)}-{node.op_type}"
        copy.name, copy.input[0] = name, tensor
        del copy.output[:]
        copy.output.append(name)
        self.nodes.append(copy)
        return name
