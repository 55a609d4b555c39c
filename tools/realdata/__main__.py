"""A real teacher as a file: python -m softlabel.tools.realdata efficientnet-lite0 teacher.onnx."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from softlabel.shards import commandline
from softlabel.shards.errors import MachineError

DESCRIPTION = """Fetch a small real teacher (5 to 34 MB, kept in the user's cache) and write it as
ONNX, with its recipe and class names inside.

Examples:
  python -m softlabel.tools.realdata efficientnet-lite0 teacher.onnx"""


@dataclass(frozen=True, kw_only=True)
class RealTeacherConfig:
    """Which teacher, and where to."""

    name: tyro.conf.Positional[
        Literal["efficientnet-lite0", "squeezenet11", "cifar10-resnet", "mnist-cnn"]
    ]
    """The first two know ImageNet's 1,000 classes."""
    output: tyro.conf.Positional[Path]
    """The ONNX file to write."""


def run(config: RealTeacherConfig) -> int:
    """Fetch, build, copy."""
    from softlabel.tools.realdata import teachers

    build = {
        "efficientnet-lite0": teachers.efficientnet_lite0,
        "squeezenet11": teachers.squeezenet11,
        "cifar10-resnet": teachers.cifar10_resnet,
        "mnist-cnn": teachers.mnist_cnn,
    }[config.name]
    path = build()
    try:
        shutil.copyfile(path, config.output)
    except OSError as error:
        raise MachineError(f"{config.output}: can't be written: {error.strerror}") from None
    print(f"wrote {config.output}")
    return 0


def main() -> None:
    """The command."""
    commandline.main("softlabel.tools.realdata", DESCRIPTION, RealTeacherConfig, run)


if __name__ == "__main__":
    main()
