"""kd-eval: flags in, a table and a report out."""

from pathlib import Path
from typing import NoReturn

from softlabel.shards import commandline
from softlabel.shards.errors import UsageError
from softlabel.tools.evaluate.config import EvalConfig

DESCRIPTION = """Say how faithful a student is to its teacher.

Fidelity (agreement, KL, total variation, slope of confidence, likeness of embeddings), and where
the tars have targets accuracy and calibration: student, teacher and an optional control side by
side, each with a 95 % interval. On request also: how well a model tells foreign images from the
collection (--ood-shards), and how it does on degraded pictures (--degradations) and under attack
(--attacks). Prints one table, and writes evaluation.json, evaluation.md and report.html. Labels
that --teacher makes are resumed by a rerun.

Examples:
  kd-eval --student student --shards 'val-{00..07}.tar' --teacher teacher.onnx --output eval
  kd-eval --student student --shards val/ --labels val-labels.zarr --output eval
  kd-eval --student student --control hard --shards val/ --labels val-labels.zarr --output eval
  kd-eval --student student --shards val/ --teacher teacher.onnx --output eval \\
    --ood-shards foreign/ --degradations all --attacks fgsm pgd

Exit codes: 0 complete, 2 usage, 3 tars that can't be labelled, 4 store, tars, student or classes
that do not belong together, 5 machine, 6 store damaged, 130/143 interrupted."""


def run(config: EvalConfig) -> int:
    """Evaluate, print the table, write the files; the exit code."""
    for name, folder in (("--student", config.student), ("--control", config.control)):
        if folder is not None and not (folder / "config.json").is_file():
            raise UsageError(f"{name} {folder}: wanted the folder of a student, found none there")
    _check_output(config.output)
    from softlabel.tools.evaluate.run import evaluate, write_figures, write_results
    from softlabel.tools.evaluate.table import print_result

    evaluation = evaluate(config, keep=lambda found: write_figures(found, config.output))
    written = write_results(evaluation, config.output)
    print_result(evaluation, written, as_json=config.log_format == "json")
    return 0


def _check_output(output: Path) -> None:
    text = str(output)
    if "://" in text or text.startswith("s3:/"):
        raise UsageError(f"--output {text}: wanted a local folder, found a URL")
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {text}: wanted a folder, found a file")


def main() -> NoReturn:
    """The command."""
    commandline.main("kd-eval", DESCRIPTION, EvalConfig, run)
