"""kd-bench: figures with their machine, as lines and as JSON."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro

from softlabel.shards import commandline

DESCRIPTION = """Measure, against a limit or a peer in the same run.

Examples:
  kd-bench label --teacher teacher.onnx --shards 'train-{0000..0009}.tar' --json label.json
  kd-bench kernel --rows 1024 --classes 21841"""


@dataclass(frozen=True, kw_only=True)
class Label:
    """kd-label against what its teacher and its decoder allow."""

    teacher: Path
    """ONNX teacher with its recipe inside."""
    shards: tuple[str, ...]
    """Tars to label."""
    views: int = 1
    """Views per image."""
    decoder: str = "auto"
    """auto, torchvision or pillow."""
    repeats: int = 3
    """Whole runs; medians are reported."""
    json: Path | None = None
    """Also write the figures here."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """The sparse loss with its gradient against the dense ways to write it."""

    rows: int = 1024
    """Rows of logits."""
    classes: int = 21_841
    """Columns of logits."""
    top_k: int = 16
    """Stored classes a row."""
    repeats: int = 15
    """Interleaved repeats; medians are reported."""
    json: Path | None = None
    """Also write the figures here."""


Command = (
    Annotated[Label, tyro.conf.subcommand("label")]
    | Annotated[Kernel, tyro.conf.subcommand("kernel")]
)


def run(command: Label | Kernel) -> int:
    """Measure and print."""
    from softlabel.tools.bench.machine import machine

    flags = {name: value for name, value in vars(command).items() if name != "json"}
    result: dict[str, Any]
    if isinstance(command, Label):
        from softlabel.tools.bench import label

        result = label.bench_label(label.LabelBench(**flags))
        print(*label.lines(result), sep="\n")
    else:
        from softlabel.tools.bench import kernel

        result = kernel.bench_kernel(kernel.KernelBench(**flags))
        print(*kernel.lines(result), sep="\n")
    where = machine()
    print(f"machine: {where['cpu']}, {where['cores']} cores, load {where['load_1min']}")
    if command.json is not None:
        command.json.write_text(json.dumps({"machine": where, **result}, indent=1) + "\n")
    return 0


def main() -> NoReturn:
    """The command."""
    commandline.main("kd-bench", DESCRIPTION, Command, run)
