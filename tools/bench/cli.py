"""kd-bench: figures with their machine, as lines and as JSON."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro

from softlabel.shards import commandline
from softlabel.tools.bench.kernel.config import KernelBench

DESCRIPTION = """Measure, against a limit or a peer in the same run.

Examples:
  kd-bench label --teacher teacher.onnx --shards 'train-{0000..0009}.tar' --json label.json
  kd-bench kernel --rows 1024 --classes 21841
  kd-bench kernel --all-shapes --dtype bf16 --hard 0.5 --json kernel.json --plot kernel.svg"""


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
class Kernel(KernelBench):
    """The sparse loss with its gradient against the other ways to write it, in one run."""

    json: Path | None = None
    """Also write the figures here."""
    plot: Path | None = None
    """Also draw them here; .png or .svg."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plot is not None and self.plot.suffix not in (".png", ".svg"):
            raise ValueError(f"plot must end in .png or .svg, got {self.plot}")


Command = (
    Annotated[Label, tyro.conf.subcommand("label")]
    | Annotated[Kernel, tyro.conf.subcommand("kernel")]
)


def run(command: Label | Kernel) -> int:
    """Measure and print."""
    from softlabel.tools.bench.machine import machine

    where = machine()
    if isinstance(command, Label):
        from softlabel.tools.bench import label

        flags = {name: value for name, value in vars(command).items() if name != "json"}
        result = label.bench_label(label.LabelBench(**flags))
        print(*label.lines(result), sep="\n")
    else:
        result = _run_kernel(command, where)
    print(f"machine: {where['cpu']}, {where['cores']} cores, load {where['load_1min']}")
    if command.json is not None:
        command.json.write_text(json.dumps({"machine": where, **result}, indent=1) + "\n")
    return 0


def _run_kernel(command: Kernel, where: dict[str, object]) -> dict[str, Any]:
    from softlabel.tools.bench.kernel import bench, linear, lines, plot

    measured = linear.bench_linear if command.linear else bench.bench_kernel
    result = measured(
        KernelBench(**{f.name: getattr(command, f.name) for f in fields(KernelBench)})
    )
    print(*lines.lines(result), sep="\n")
    if command.plot is not None:
        plot.plot(result, where, command.plot)
    return result


def main() -> NoReturn:
    """The command."""
    commandline.main("kd-bench", DESCRIPTION, Command, run)
