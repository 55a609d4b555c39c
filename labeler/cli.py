"""kd-label: flags in, exit code out."""

from typing import NoReturn

from softlabel.labeler.config import LabelConfig
from softlabel.shards import commandline

DESCRIPTION = """Label images with a teacher, once.

Streams WebDataset tars through an ONNX teacher and writes its top-k logits, and what lies outside
them, to a zarr store. Rerun the same command to resume.

Examples:
  kd-label --teacher teacher.onnx --shards 'train-{0000..0099}.tar' --out labels.zarr --dry-run
  kd-label --teacher teacher.onnx --shards 'train-{0000..0099}.tar' --out labels.zarr
  kd-label --teacher teacher.onnx --shards tars/ --out labels.zarr --views 4 --view-recipe rrc-flip

Exit codes: 0 complete, 2 usage, 3 failed tars or too many bad images, 4 another teacher, recipe or
shard list than the store's, 5 machine, 6 store damaged, 130/143 interrupted and resumable."""


def run(config: LabelConfig) -> int:
    """Label, or say what that would do; how it went is the exit code."""
    if config.dry_run:
        from softlabel.labeler.dry_run import dry_run
        from softlabel.labeler.plan import make_plan

        print(*dry_run(make_plan(config)), sep="\n")
        return 0
    from softlabel.labeler.run import label

    return label(config).exit_code


def main() -> NoReturn:
    """The command."""
    commandline.main("kd-label", DESCRIPTION, LabelConfig, run)
