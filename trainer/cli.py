"""kd-train: flags in, exit code out."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from softlabel.shards import commandline
from softlabel.trainer.config import TrainConfig

if TYPE_CHECKING:
    from softlabel.trainer.plan import Plan

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
  kd-train --shards mixed/ --labels mixed.zarr --student softlabel/small-cnn --output student \\
      --sample balanced --source-weight noise=0 --dry-run
  kd-train --shards few/ --labels few.zarr --init student --output student2 --lr 0.01

Exit codes: 0 complete, 2 usage, 4 store, tars or checkpoint that do not belong together, 5 machine,
6 store damaged, 130/143 interrupted and resumable."""


def run(config: TrainConfig) -> int:
    """Train; how it went is the exit code."""
    from softlabel.trainer.plan import make_plan

    plan = make_plan(config)
    if config.dry_run:
        print(*dry_run_lines(plan), sep="\n")
        return 0
    from softlabel.trainer.run import train_plan

    return train_plan(plan).exit_code


def dry_run_lines(plan: "Plan") -> Iterator[str]:
    """What a run would do."""
    config = plan.config
    passes = config.num_rows(plan.num_images) / plan.num_images
    yield (
        f"would train {config.student or config.begun_from} into {config.output}: "
        f"{plan.num_steps:,} steps of {config.batch_size} images, {passes:,.2f} passes over "
        f"{plan.num_images:,} images of {len(plan.tars):,} tar(s)"
    )
    yield from plan.notes


def main() -> NoReturn:
    """The command."""
    commandline.main("kd-train", DESCRIPTION, TrainConfig, run)
