"""evaluate(config): the run, readable top to bottom."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from softlabel.shards import durable
from softlabel.shards.errors import MachineError
from softlabel.shards.progress import Progress
from softlabel.tools.evaluate.answers import ask
from softlabel.tools.evaluate.config import EvalConfig
from softlabel.tools.evaluate.evaluation import Evaluation, sum_up
from softlabel.tools.evaluate.further import Further
from softlabel.tools.evaluate.markdown import markdown
from softlabel.tools.evaluate.models import load_models
from softlabel.tools.evaluate.page import report_page
from softlabel.tools.evaluate.teacher_labels import find_labels

RESULT = "evaluation.json"
TEXT = "evaluation.md"
REPORT = "report.html"


_UNFINISHED = "unfinished: foreign images, degradations and attacks are not in these figures yet"


def evaluate(
    config: EvalConfig, *, keep: Callable[[Evaluation], object] | None = None
) -> Evaluation:
    """Compare the student, and the control if there is one, with the teacher.

    Writes nothing but the labels of --teacher, below --output.

    Args:
        config: what is wanted.
        keep: called with the figures of the main pass before foreign images, degradations and
            attacks are begun, so that a failure among these does not lose them; not called where
            none of these is wanted.

    Raises:
        SoftLabelError: for whatever can't be right, and tars or images that are not the labelled
            ones.
    """
    models = load_models(config)
    labelled = find_labels(config, models)
    further = Further.prepare(config, models, labelled)
    progress = Progress(
        "evaluating", total=labelled.num_images, done=0, log_format=config.log_format
    )
    with progress:
        asked = ask(
            models,
            labelled,
            batch_size=config.batch_size,
            workers=config.num_workers,
            progress=progress,
        )
    evaluation = sum_up(models, labelled, asked)
    images = evaluation.images
    if keep is not None and (further.ood_tars or further.stresses):
        keep(replace(evaluation, own_notes=[*evaluation.own_notes, _UNFINISHED]))
    ood = further.detect(models, labelled, images) if further.ood_tars else None
    stress = further.stress(models, labelled, images) if further.stresses else None
    return replace(evaluation, ood=ood, stress=stress)


def write_figures(evaluation: Evaluation, output: Path) -> list[Path]:
    """Write evaluation.json and .md, each whole; a report.html of other figures goes.

    Raises:
        MachineError: they can't be written.
    """
    data = json.dumps(evaluation.to_dict(), indent=2, allow_nan=False) + "\n"
    files = {output / RESULT: data.encode(), output / TEXT: markdown(evaluation).encode()}
    return _write(files, output, outdated=output / REPORT)


def write_results(evaluation: Evaluation, output: Path) -> list[Path]:
    """Write evaluation.json and .md, then report.html, each whole; MachineError if that fails."""
    written = write_figures(evaluation, output)
    return [*written, *_write({output / REPORT: report_page(evaluation).encode()}, output)]


def _write(
    files: Mapping[Path, bytes], output: Path, *, outdated: Path | None = None
) -> list[Path]:
    try:
        output.mkdir(parents=True, exist_ok=True)
        if outdated is not None:
            outdated.unlink(missing_ok=True)
        durable.replace_all(files)
    except OSError as error:
        raise MachineError(f"--output {output}: can't be written: {error.strerror}") from error
    return list(files)
