"""Types and shapes of a model's tensors: as declared, else as ONNX infers them without running."""

from dataclasses import dataclass
from functools import cached_property

import onnx

Shape = tuple[int | None, ...]
"""None stands for a dimension that is known only when the model runs."""

_LARGEST_KEPT_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor: its ONNX element type and its shape, None if not even the rank is known."""

    element_type: int
    shape: Shape | None


class Shapes:
    """What is known of the tensors of one model; inference runs once, when it is first needed."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._declared = _declared(model.graph)

    def of(self, name: str) -> Value:
        """The tensor's type and shape; the type is UNDEFINED for one that nothing is known of."""
        declared = self._declared.get(name)
        if declared is not None and declared.shape is not None and None not in declared.shape[1:]:
            return declared
        unknown = Value(onnx.TensorProto.UNDEFINED, None)
        return self._inferred.get(name) or declared or unknown

    @cached_property
    def _inferred(self) -> dict[str, Value]:
        light = _without_weights(self._model)
        try:
            return _declared(onnx.shape_inference.infer_shapes(light, data_prop=True).graph)
        except (onnx.shape_inference.InferenceError, RuntimeError):
            return {}  # an operator that onnx does not know; onnxruntime will say more


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights as inputs: shapes need them no more than that."""
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    light.graph.value_info.extend(model.graph.value_info)
    known = {value.name for value in model.graph.input}
    for weight in model.graph.initializer:
        external = weight.data_location == onnx.TensorProto.EXTERNAL
        if not external and weight.ByteSize() <= _LARGEST_KEPT_BYTES:
            light.graph.initializer.append(weight)
        elif weight.name not in known:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            )
    return light


def _declared(graph: onnx.GraphProto) -> dict[str, Value]:
    values = (*graph.value_info, *graph.input, *graph.output)
    return {value.name: _value(value) for value in values}


def _value(info: onnx.ValueInfoProto) -> Value:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return Value(tensor.elem_type, None)
    # Some exporters write 0 or -1 for a dimension that they leave open.
    sizes = (d.dim_value if d.HasField("dim_value") else 0 for d in tensor.shape.dim)
    return Value(tensor.elem_type, tuple(size if size > 0 else None for size in sizes))
