"""The last nodes of the labelling graph: logits to what the store keeps of them.

N images, C classes, K classes kept, S temperatures. All arithmetic is float32.
"""

from collections.abc import Sequence

import numpy as np
import onnx

from softlabel.labeler.nodes import Nodes

SMALLEST_LOGIT = -65504.0
"""What relative logits are clamped at: the store holds them as float16, and this is its lowest."""


def add_labels(
    nodes: Nodes, logits: str, *, num_classes: int, top_k: int, temperatures: Sequence[float]
) -> None:
    """Nodes from float32 logits [N, C] to the outputs `OUTPUTS`.

    A row with a NaN or an infinity is found before TopK, whose order and memory safety a NaN could
    break, and goes on as zeros: `finite` says that its other outputs mean nothing.
    """
    K, C = top_k, num_classes
    finite = _add_finite(nodes, logits)
    logits = nodes.add("Where", finite, logits, nodes.constant(0.0))
    values, places = nodes.top(logits, min(K + 1, C))
    peak = nodes.columns(values, 0, 1)
    head = nodes.add("Sub", nodes.columns(values, 0, K), peak)
    classes = nodes.add("Identity", nodes.columns(places, 0, K), output="topk_class")
    nodes.add("Max", head, nodes.constant(SMALLEST_LOGIT), output="topk_logit")
    nodes.reshape(peak, (-1,), output="max_logit")
    nodes.reshape(finite, (-1,), output="finite")
    if K == C:
        # The peak is finite here, so this is -inf in every column: no class is left out.
        nothing = nodes.constant(np.full((1, len(temperatures)), -np.inf))
        zero = nodes.add("Mul", peak, nodes.constant(0.0))
        nodes.add("Add", zero, nothing, output="tail_lse")
        return
    rest = nodes.add(
        "ScatterElements",
        logits,
        classes,
        nodes.add("Add", head, nodes.constant(-np.inf)),  # -inf, in the shape of `head`
        axis=1,
    )
    second_peak = nodes.columns(values, K, K + 1)
    _add_tails(nodes, rest, second_peak, peak, num_classes=C, temperatures=temperatures)


def _add_finite(nodes: Nodes, logits: str) -> str:
    """[N, 1] bool: no logit of the row is NaN or infinite."""
    odd = nodes.add("Or", nodes.add("IsNaN", logits), nodes.add("IsInf", logits))
    worst = nodes.reduce("ReduceMax", nodes.add("Cast", odd, to=onnx.TensorProto.FLOAT), axis=1)
    return nodes.add("Equal", worst, nodes.constant(0.0))


def _add_tails(
    nodes: Nodes,
    rest: str,
    second_peak: str,
    peak: str,
    *,
    num_classes: int,
    temperatures: Sequence[float],
) -> None:
    """log(sum(exp((z - peak) / t))) over the classes left out, for each temperature t.

    `rest` [N, C] has -inf where a class was kept. Its own peak m is taken out of the sum, which so
    is at least 1 and loses nothing however far the tail lies below the head:
    log(sum(exp((z - m) / t))) + (m - peak) / t. One broadcast over [N, S, C] was the fastest of the
    forms measured; onnxruntime's ReduceLogSumExp gives -inf over a masked row.
    """
    t = np.array(temperatures, np.float32)
    below = nodes.add("Sub", rest, second_peak)
    below = nodes.reshape(below, (-1, 1, num_classes))
    exponents = nodes.add("Div", below, nodes.constant(t.reshape(1, -1, 1)))
    total = nodes.reduce("ReduceSum", nodes.add("Exp", exponents), axis=2)
    logs = nodes.reshape(nodes.add("Log", total), (-1, len(t)))
    offset = nodes.add("Div", nodes.add("Sub", second_peak, peak), nodes.constant(t.reshape(1, -1)))
    nodes.add("Add", logs, offset, output="tail_lse")
