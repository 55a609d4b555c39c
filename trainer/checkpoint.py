"""Checkpoints: folders that are whole and on disk, or not there; the last two are kept.

    checkpoints/step-00001000/
        model.safetensors      the student's weights
        optimiser.safetensors  what the optimiser has gathered
        checkpoint.json        sealed: step, plain numbers, what decides the run, the files' sha256

The order of images and the random numbers of a step are pure functions of the step, so nothing else
is needed to go on as if nothing had happened. Nothing is pickled.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from softlabel.shards import durable
from softlabel.shards.errors import IdentityError, MachineError, StoreError, UsageError
from softlabel.shards.failpoints import reached
from softlabel.shards.hashing import sha256_hex
from softlabel.shards.sealed import seal, unseal
from softlabel.trainer.student_files import packed

FOLDER = "checkpoints"
STEPS = (
    "checkpoint-begins",
    "checkpoint-file-written",
    "checkpoint-written",
    "checkpoint-renamed",
    "checkpoint-saved",
)
"""The failpoints of a save, in order; one file each for the second."""

_KEPT = 2
_RECORD = "checkpoint.json"
_MODEL, _OPTIMISER = "model.safetensors", "optimiser.safetensors"
_PREFIX = "step-"


@dataclass(frozen=True, kw_only=True)
class Record:
    """The sealed part of a checkpoint."""

    step: int
    """Steps done."""
    identity: Mapping[str, Any]
    """What decides the weights: a run that differs in it can't go on from here."""
    threads: int
    """Of torch, on the CPU: another number changes the last bits."""
    optimiser: Mapping[str, Any]
    """The optimiser's plain numbers."""
    scaler: Mapping[str, Any]
    """The loss scale of fp16."""
    files: Mapping[str, str]
    """Sha256 of the other files."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """All that a run needs to go on."""

    step: int
    identity: Mapping[str, Any]
    threads: int
    model: Mapping[str, Tensor]
    optimiser_tensors: Mapping[str, Tensor]
    optimiser_numbers: Mapping[str, Any]
    scaler: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint under its step, drop all but the last two; MachineError if that fails."""
    reached("checkpoint-begins")
    place = folder / f"{_PREFIX}{checkpoint.step:08d}"
    temporary = folder / f"{place.name}.{os.getpid()}{durable.TEMPORARY}"
    data = {
        _MODEL: packed(checkpoint.model),
        _OPTIMISER: packed(checkpoint.optimiser_tensors),
    }
    record = Record(
        step=checkpoint.step,
        identity=checkpoint.identity,
        threads=checkpoint.threads,
        optimiser=checkpoint.optimiser_numbers,
        scaler=checkpoint.scaler,
        files={name: sha256_hex([content]) for name, content in data.items()},
    )
    data[_RECORD] = seal(asdict(record))
    try:
        remove_leftovers(folder)
        temporary.mkdir(parents=True)
        for name, content in data.items():
            _write(temporary / name, content)
            reached("checkpoint-file-written")
        durable.sync_directory(temporary)
        reached("checkpoint-written")
        # One of this step can only stand there if it was not whole.
        shutil.rmtree(place, ignore_errors=True)
        temporary.rename(place)
        durable.sync_directory(folder)
        reached("checkpoint-renamed")
        for old in _by_age(folder)[_KEPT:]:
            shutil.rmtree(old)
    except OSError as error:
        raise MachineError(
            f"{folder}: can't write a checkpoint: {error.strerror}; those before it are safe, "
            "rerun the same command to go on"
        ) from error
    reached("checkpoint-saved")


def load(place: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        UsageError: there is none.
        StoreError: it is not whole, or a bit of it has changed.
    """
    if not (place / _RECORD).is_file():
        raise UsageError(f"{place}: wanted a checkpoint of kd-train, found none")
    try:
        record = _record(place)
        data = {name: (place / name).read_bytes() for name in (_MODEL, _OPTIMISER)}
    except OSError as error:
        raise StoreError(f"{place}: not a whole checkpoint: {error}") from None
    for name, content in data.items():
        if sha256_hex([content]) != record.files.get(name):
            raise StoreError(f"{place / name}: not the bytes that were written: file damaged")
    return Checkpoint(
        step=record.step,
        identity=record.identity,
        threads=record.threads,
        model=safetensors.torch.load(data[_MODEL]),
        optimiser_tensors=safetensors.torch.load(data[_OPTIMISER]),
        optimiser_numbers=record.optimiser,
        scaler=record.scaler,
    )


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, if there is one, and what is wrong with those after it."""
    problems: list[str] = []
    for place in _by_age(folder):
        try:
            return load(place), problems
        except (StoreError, UsageError) as error:
            problems.append(str(error))
    return None, problems


def refuse_other_run(found: Mapping[str, Any], wanted: Mapping[str, Any], *, place: str) -> None:
    """IdentityError with each field in which a checkpoint's run differs from this one."""
    different = [
        f"{name}: wanted {wanted.get(name)!r}, the checkpoint has {found.get(name)!r}"
        for name in sorted({*wanted, *found})
        if wanted.get(name) != found.get(name)
    ]
    if different:
        raise IdentityError(
            f"{place}: a checkpoint of another run: {'; '.join(different)}; use another --output, "
            "or --resume never to start over"
        )


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left; no other process writes here."""
    for path in folder.glob(f"*{durable.TEMPORARY}"):
        shutil.rmtree(path, ignore_errors=True)


def _record(place: Path) -> Record:
    content = unseal((place / _RECORD).read_bytes(), name=str(place / _RECORD))
    if set(content) != {field.name for field in fields(Record)}:
        raise StoreError(f"{place / _RECORD}: written by another release of softlabel")
    return Record(**content)


def _by_age(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted(_folders(folder), reverse=True)


def _folders(folder: Path) -> Iterator[Path]:
    for path in folder.glob(f"{_PREFIX}*"):
        if path.is_dir() and path.name.removeprefix(_PREFIX).isdigit():
            yield path


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
