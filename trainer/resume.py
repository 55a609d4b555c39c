"""Where a run begins: at the start, or at a checkpoint of the same run."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from softlabel.shards.errors import IdentityError, UsageError
from softlabel.trainer import checkpoint
from softlabel.trainer.metrics import FILE
from softlabel.trainer.optimisers import optimiser_state, restore_optimiser
from softlabel.trainer.student_files import WEIGHTS
from softlabel.trainer.training import Training


def resume(
    training: Training, output: Path, *, mode: str, identity: Mapping[str, Any]
) -> tuple[int, list[str]]:
    """Put the newest checkpoint's state back; the steps done, and lines to say.

    Args:
        training: as built by this run's config.
        output: the folder of the run.
        mode: auto, never (deletes what is there) or the folder of a checkpoint.
        identity: what decides this run's weights.

    Raises:
        UsageError: a finished student stands there that no checkpoint belongs to.
        IdentityError: the checkpoint is of another run.
        StoreError: the checkpoint named is damaged.
    """
    folder = output / checkpoint.FOLDER
    if mode == "never":
        shutil.rmtree(folder, ignore_errors=True)
        for name in (FILE, WEIGHTS):
            (output / name).unlink(missing_ok=True)
        return 0, []
    problems: list[str] = []
    found: checkpoint.Checkpoint | None
    if mode != "auto":
        place, found = mode, checkpoint.load(Path(mode))
    else:
        place = str(folder)
        found, problems = checkpoint.newest(folder)
    notes = [f"warning: left aside: {problem}" for problem in problems]
    if found is None:
        if (output / WEIGHTS).exists():
            raise UsageError(
                f"--output {output}: holds a student, but no whole checkpoint to go on from; use "
                "another --output, or --resume never to write over it"
            )
        return 0, notes
    checkpoint.refuse_other_run(found.identity, identity, place=place)
    _restore(training, found, place)
    notes.append(f"resumed after step {found.step:,}")
    threads = torch.get_num_threads()
    if training.device.type == "cpu" and threads != found.threads:
        notes.append(
            f"warning: torch has {threads} thread(s), before it had {found.threads}: the weights "
            "will differ in their last bits from those of an uninterrupted run"
        )
    return found.step, notes


def snapshot(
    training: Training, *, step: int, identity: Mapping[str, Any]
) -> checkpoint.Checkpoint:
    """All that `resume` needs, after `step` steps."""
    tensors, numbers = optimiser_state(training.optimiser)
    return checkpoint.Checkpoint(
        step=step,
        identity=identity,
        threads=torch.get_num_threads(),
        model=training.student.state_dict(),
        optimiser_tensors=tensors,
        optimiser_numbers=numbers,
        scaler=training.scaler.state_dict(),
    )


def _restore(training: Training, found: checkpoint.Checkpoint, place: str) -> None:
    try:
        training.student.load_state_dict(found.model)
        restore_optimiser(training.optimiser, found.optimiser_tensors, found.optimiser_numbers)
        if training.scaler.is_enabled():
            training.scaler.load_state_dict(dict(found.scaler))
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        # Equal configs, but the student's own code has changed meanwhile.
        raise IdentityError(
            f"{place}: does not fit the student that is built now ({error}); "
            "use another --output, or --resume never to start over"
        ) from None
