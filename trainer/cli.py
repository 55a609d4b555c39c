"""kd-train: flags in, exit code out."""

from typing import NoReturn

from softlabel.shards import commandline
from softlabel.trainer.config import TrainConfig

DESCRIPTION = """Train a student on stored labels, without the teacher.

Reads the tars beside the label store, replays the views that the teacher saw, and minimises the
divergence from its stored top-k logits. Rerun the same command to resume: on the CPU, with the same
number of threads (OMP_NUM_THREADS, else all cores), the weights come out the same bit for bit.

Examples:
  kd-train --shards 'train-{0000..0099}.tar' --labels labels.zarr --student softlabel/small-cnn \\
      --output student
  kd-train --shards tars/ --labels labels.zarr --student torchvision/resnet18 --output r18 \\
      --epochs 90 --lr 0.1
  kd-train --shards tars/ --labels labels.zarr --student timm/vit_tiny_patch16_224 --output vit \\
      --opt adamw --lr 1e-3

Exit codes: 0 complete, 2 usage, 4 store, tars or checkpoint that do not belong together, 5 machine,
6 store damaged, 130/143 interrupted and resumable."""


def run(config: TrainConfig) -> int:
    """Train; how it went is the exit code."""
    from softlabel.trainer.plan import make_plan

    plan = make_plan(config)
    from softlabel.trainer.run import train_plan

    return train_plan(plan).exit_code


def main() -> NoReturn:
    """The command."""
    commandline.main("kd-train", DESCRIPTION, TrainConfig, run)
