"""Train a small convolutional network on 8 x 8 digits, and write it as ONNX."""

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from softlabel.shards.recipe import Recipe
from softlabel.tools.realdata.onnx_builder import GraphBuilder

RECIPE = Recipe(
    input_size=(3, 8, 8),
    interpolation="bilinear",
    crop_pct=1.0,
    crop_mode="center",
    mean=(0.3053, 0.3053, 0.3053),
    std=(0.3759, 0.3759, 0.3759),
)
CLASS_NAMES = tuple("0123456789")
_STEPS = 500
_BATCH = 64


def build(
    images: NDArray[np.uint8], targets: NDArray[np.int64], *, seed: int, batch_norm: bool
) -> onnx.ModelProto:
    """Train from random weights; `logits` [N, 10], `features` [N, 128].

    Args:
        images: [N, 8, 8, 3] grey as RGB.
        targets: [N] in [0, 10).
        seed: of all that is random.
        batch_norm: one after each convolution.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: the same weights every time
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _network(batch_norm)
            _train(network, _pixels(images), torch.from_numpy(targets))
    finally:
        torch.set_num_threads(threads)
    return _model(network)


def _pixels(images: NDArray[np.uint8]) -> Tensor:
    scaled = (images / 255 - np.array(RECIPE.mean)) / np.array(RECIPE.std)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def _network(batch_norm: bool) -> nn.Sequential:
    """52,964 parameters, 212 more with batch norm."""
    layers: list[nn.Module] = []
    channels_in = 3
    for channels, pooled in ((16, False), (32, True), (58, True)):
        layers.append(nn.Conv2d(channels_in, channels, 3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.ReLU())
        if pooled:
            layers.append(nn.MaxPool2d(2))
        channels_in = channels
    head = nn.Linear(channels_in * 2 * 2, 128), nn.ReLU(), nn.Linear(128, 10)
    return nn.Sequential(*layers, nn.Flatten(), *head)


def _train(network: nn.Sequential, x: Tensor, targets: Tensor) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=_STEPS)
    padded = nn.functional.pad(x, (1, 1, 1, 1), value=float(x.min()))
    for _ in range(_STEPS):
        rows = torch.randint(len(x), (_BATCH,))
        # A pixel up or down, left or right, the same for the whole batch.
        top, left = torch.randint(3, (2,)).tolist()
        batch = padded[rows, :, top : top + 8, left : left + 8]
        loss = nn.functional.cross_entropy(network(batch), targets[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def _model(network: nn.Sequential) -> onnx.ModelProto:
    """Write the kinds of layer that `_network` is made of."""
    graph = GraphBuilder()
    x, features = graph.input, ""
    norms = dict(zip(network, list(network)[1:], strict=False))
    for layer in network:
        match layer:
            case nn.Conv2d():
                x = graph.conv(x, *_folded(layer, norms[layer]), pads=(1, 1, 1, 1))
            case nn.ReLU():
                x = graph.node("Relu", x)
            case nn.MaxPool2d():
                x = graph.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            case nn.Flatten():
                x = graph.node("Flatten", x, axis=1)
            case nn.Linear(weight=weight, bias=bias):
                features = x
                constants = [graph.constant(_array(values)) for values in (weight, bias)]
                x = graph.node("Gemm", x, *constants, transB=1)
    return graph.model(
        logits=x,
        features=features,
        num_features=128,
        recipe=RECIPE,
        class_names=CLASS_NAMES,
    )


def _folded(conv: nn.Conv2d, after: nn.Module) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight and bias of a convolution together with the batch norm after it, if one is."""
    assert conv.bias is not None
    weight, bias = _array(conv.weight), _array(conv.bias)
    if not isinstance(after, nn.BatchNorm2d):
        return weight, bias
    assert after.running_mean is not None
    assert after.running_var is not None
    gain = _array(after.weight) / np.sqrt(_array(after.running_var) + after.eps)
    shift = _array(after.bias) - _array(after.running_mean) * gain
    return weight * gain[:, None, None, None], bias * gain + shift


def _array(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(tensor.detach().numpy(), np.float64)
