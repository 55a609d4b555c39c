"""Write an ONNX classifier node by node, as a teacher that says itself how it wants its images."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto, helper, numpy_helper

from softlabel.shards.recipe import METADATA_KEY, Recipe

# Both old enough for every onnxruntime that is supported, and fixed so that bytes are too.
_OPSET = 17
_IR_VERSION = 8


class GraphBuilder:
    """A graph under construction: each method adds nodes and returns the name of their result.

    Names are counted, so the same calls give the same bytes.
    """

    input = "input"

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, values: ArrayLike) -> str:
        """A float32 tensor of the model."""
        name = f"constant{len(self._constants)}"
        array = np.ascontiguousarray(values, np.float32).reshape(np.shape(values))
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One node with one result."""
        name = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def conv(
        self,
        x: str,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        *,
        stride: int = 1,
        groups: int = 1,
        pads: Sequence[int] = (0, 0, 0, 0),
    ) -> str:
        """`weight` is [out, in / groups, height, width], `pads` top, left, bottom, right."""
        inputs = [x, self.constant(weight)]
        if bias is not None:
            inputs.append(self.constant(bias))
        return self.node(
            "Conv",
            *inputs,
            kernel_shape=list(np.shape(weight)[2:]),
            strides=[stride, stride],
            group=groups,
            pads=list(pads),
        )

    def pixel_mean(self, x: str) -> str:
        """[N, C, H, W] to [N, C]."""
        return self.node("Flatten", self.node("GlobalAveragePool", x), axis=1)

    def model(
        self,
        *,
        logits: str,
        features: str,
        num_features: int,
        recipe: Recipe,
        class_names: Sequence[str],
    ) -> onnx.ModelProto:
        """The finished model: `input` [N, 3, H, W] to `logits` [N, C] and `features` [N, D]."""
        nodes = [
            *self._nodes,
            helper.make_node("Identity", [logits], ["logits"]),
            helper.make_node("Identity", [features], ["features"]),
        ]
        graph = helper.make_graph(
            nodes,
            "teacher",
            [_rows(self.input, *recipe.input_size)],
            [_rows("logits", len(class_names)), _rows("features", num_features)],
            self._constants,
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        metadata = {
            METADATA_KEY: json.dumps(recipe.to_dict()),
            "softlabel.class_names": json.dumps(list(class_names)),
        }
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model, full_check=True)
        return model


def same_pads(size: int, *, kernel: int, stride: int) -> tuple[int, tuple[int, int, int, int]]:
    """TensorFlow's SAME: the output's side, and pads with the odd pixel below and to the right."""
    out = math.ceil(size / stride)
    total = max((out - 1) * stride + kernel - size, 0)
    before, after = total // 2, total - total // 2
    return out, (before, before, after, after)


def _rows(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
