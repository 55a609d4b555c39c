"""What a teacher's output holds: logits, a softmax to take off, or other probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx

from softlabel.labeler.surgery import follow_up, producers

Kind = Literal["logits", "softmax-removed", "probabilities"]

RESHAPING = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Dropout"})
"""Operators that pass values on as they are, in inference."""

_QUANTIZING = frozenset({"QuantizeLinear", "DequantizeLinear"})
_PROBABILITIES = frozenset(
    {"Softmax", "Sigmoid", "HardSigmoid", "Exp", "QLinearSoftmax", "QLinearSigmoid"}
)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The last steps of a teacher.

    `source` is the tensor to take, and `steps` the shape changes from there to the output's shape,
    in order. `softmax` is the node that was taken off.
    """

    kind: Kind
    source: str
    steps: Sequence[onnx.NodeProto] = ()
    softmax: onnx.NodeProto | None = None


def ending(graph: onnx.GraphProto, output: str) -> Ending:
    """Tell by the graph alone, without running it, what `output` holds.

    The last operator that is no change of shape or type decides. Softmax, also when written out as
    exp / sum: its input is taken instead. Sigmoid, HardSigmoid, Exp, and any softmax that is
    quantized on its way: probabilities, whose logarithm will serve. All else, LogSoftmax too:
    logits. Probabilities made in any other way can't be told from logits here.
    """
    makers = producers(graph)
    name, passed = follow_up(output, makers, RESHAPING | _QUANTIZING)
    last = makers.get(name)
    quantized = any(node.op_type in _QUANTIZING for node in passed)
    logits = None if last is None or quantized else _under_softmax(last, makers)
    if logits is not None:
        steps = [node for node in reversed(passed) if node.op_type not in {"Identity", "Cast"}]
        return Ending(kind="softmax-removed", source=logits, steps=steps, softmax=last)
    probable = last is not None and (
        last.op_type in _PROBABILITIES or _is_exp_over_sum(last, makers)
    )
    return Ending(kind="probabilities" if probable else "logits", source=output)


def _under_softmax(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> str | None:
    """The logits that a softmax takes; None for any other operator."""
    if node.op_type == "Softmax":
        return str(node.input[0])
    if not _is_exp_over_sum(node, makers):
        return None
    shifted = makers[node.input[0]].input[0]
    sub = makers.get(shifted)
    if sub is None or sub.op_type != "Sub":
        return str(shifted)
    peak = makers.get(sub.input[1])
    is_peak = peak is not None and peak.op_type == "ReduceMax" and peak.input[0] == sub.input[0]
    return str(sub.input[0] if is_peak else shifted)


def _is_exp_over_sum(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> bool:
    if node.op_type != "Div":
        return False
    top, bottom = (makers.get(name) for name in node.input)
    return (
        top is not None
        and bottom is not None
        and top.op_type == "Exp"
        and bottom.op_type == "ReduceSum"
        and bottom.input[0] == node.input[0]
    )
