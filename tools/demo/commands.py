"""The commands of the demo, as a user would type them, run and timed."""

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from softlabel.shards.errors import SoftLabelError
from softlabel.tools.demo.settings import DemoConfig


class StageFailedError(SoftLabelError):
    """A command of the demo ended with an exit code other than 0, which is then the demo's."""

    def __init__(self, name: str, exit_code: int) -> None:
        super().__init__(f"{name} ended with exit code {exit_code}; its lines above say why")
        self.exit_code = exit_code


def label_train(config: DemoConfig, teacher: Path) -> list[str]:
    """Label the unlabelled images, several views each."""
    return [
        *_label(teacher, config.train_tars, config.train_labels),
        *("--views", str(config.views), "--view-recipe", "crop-flip", "--seed", str(config.seed)),
    ]


def label_foreign(config: DemoConfig, teacher: Path) -> list[str]:
    """What the teacher calls images of things it has no class for."""
    return [
        *_label(teacher, config.foreign_tars, config.foreign_labels),
        *("--views", str(config.views), "--view-recipe", "crop-flip", "--seed", str(config.seed)),
    ]


def label_test(config: DemoConfig, teacher: Path) -> list[str]:
    """What the teacher says of the test images."""
    return _label(teacher, config.test_tars, config.test_labels)


def label_labelled(config: DemoConfig, teacher: Path) -> list[str]:
    """A store for the baseline to read true classes from; what the teacher says goes unused."""
    return _label(teacher, config.labelled_tars, config.labelled_labels)


def _label(teacher: Path, tars: Path, store: Path) -> list[str]:
    # Pillow: at 32 pixels it is as fast, and loading torchvision would take longer than labelling.
    return [
        *("kd-label", "--teacher", str(teacher), "--shards", str(tars), "--out", str(store)),
        *("--top-k", "10", "--decoder", "pillow"),
    ]


def train_student(config: DemoConfig) -> list[str]:
    """Train on the stored labels alone."""
    return [
        *_train(config, config.train_tars, config.train_labels, config.student),
        *("--kd-temperature", "2"),
    ]


def train_blind(config: DemoConfig) -> list[str]:
    """The same student, as long, on foreign images only: it never sees one of the ten classes."""
    return [
        *_train(config, config.foreign_tars, config.foreign_labels, config.blind),
        *("--kd-temperature", "2"),
    ]


def train_baseline(config: DemoConfig) -> list[str]:
    """Train the same student, as long, on the true classes."""
    return [
        *_train(config, config.labelled_tars, config.labelled_labels, config.baseline),
        *("--distill-loss-weight", "0", "--task-loss-weight", "1", "--augment", "crop-flip"),
    ]


def _train(config: DemoConfig, tars: Path, labels: Path, output: Path) -> list[str]:
    return [
        *("kd-train", "--shards", str(tars), "--labels", str(labels)),
        *("--student", "softlabel/small-cnn", "--output", str(output)),
        *(
            "--steps",
            str(config.steps),
            "--batch-size",
            "128",
            "--lr",
            "0.1",
            "--sched",
            "onecycle",
        ),
        *("--channels-last", "--workers", "1", "--checkpoint-every", "250"),
        *("--seed", str(config.seed)),
    ]


def evaluate(config: DemoConfig) -> list[str]:
    """Student, teacher and baseline side by side on the test images."""
    return [
        *("kd-eval", "--student", str(config.student), "--control", str(config.baseline)),
        *("--shards", str(config.test_tars), "--labels", str(config.test_labels)),
        *("--output", str(config.evaluation)),
    ]


def evaluate_blind(config: DemoConfig) -> list[str]:
    """The student of foreign images on the test images."""
    return [
        *("kd-eval", "--student", str(config.blind)),
        *("--shards", str(config.test_tars), "--labels", str(config.test_labels)),
        *("--output", str(config.blind_evaluation)),
    ]


def show(command: Sequence[str]) -> None:
    """Print a command as one would type it."""
    print("$ " + shlex.join(command), flush=True)


def run(*commands: Sequence[str]) -> None:
    """Run commands side by side, one thread of arithmetic each, and wait for all.

    Their lines appear as they come, with the command's name before them where there are several.

    Raises:
        StageFailedError: one of them failed; the others are then stopped.
    """
    for command in commands:
        show(command)
    processes = [_start(command, alone=len(commands) == 1) for command in commands]
    readers = [
        threading.Thread(target=_relay, args=(process, _label_of(command)))
        for process, command in zip(processes, commands, strict=True)
        if process.stdout is not None
    ]
    for reader in readers:
        reader.start()
    try:
        _wait(processes, commands)
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
            process.wait()
        for reader in readers:
            reader.join()


def _wait(processes: Sequence[subprocess.Popen[str]], commands: Sequence[Sequence[str]]) -> None:
    waiting = list(zip(processes, commands, strict=True))
    while waiting:
        for process, command in list(waiting):
            try:
                code = process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                continue
            waiting.remove((process, command))
            if code:
                raise StageFailedError(command[0], code)


def _start(command: Sequence[str], *, alone: bool) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = Path(sys.executable).parent / command[0]
    return subprocess.Popen(
        [str(program), *command[1:]],
        env=environment,
        text=True,
        stdout=None if alone else subprocess.PIPE,
        stderr=None if alone else subprocess.STDOUT,
    )


def _relay(process: subprocess.Popen[str], name: str) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            print(f"{name:8} | {line}", end="", flush=True)


def _label_of(command: Sequence[str]) -> str:
    return Path(command[command.index("--output") + 1]).name
