"""train(config): the run, readable top to bottom."""

import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from softlabel.shards.errors import MachineError, UsageError
from softlabel.shards.failpoints import reached
from softlabel.shards.progress import Progress
from softlabel.shards.stopping import StopRequest, stop_on_signals
from softlabel.trainer import checkpoint
from softlabel.trainer.assembly import (
    make_loader,
    make_renderer,
    make_settings,
    make_training,
    open_decoder_of,
    provenance,
    resolve_device,
)
from softlabel.trainer.card import model_card
from softlabel.trainer.config import TrainConfig
from softlabel.trainer.first_weights import Student, fresh, make_student
from softlabel.trainer.metrics import FILE, Meter, MetricsFile, Row, last_row
from softlabel.trainer.plan import Plan, make_plan
from softlabel.trainer.resume import resume, snapshot
from softlabel.trainer.stream import BatchStream, stream
from softlabel.trainer.student_files import save_student
from softlabel.trainer.training import Training


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    step: int
    """Steps done, by this run and those before it."""
    num_steps: int
    signal: int
    """SIGINT or SIGTERM if one ended the run, else 0."""

    @property
    def exit_code(self) -> int:
        """0 complete, 128 + signal interrupted."""
        return 128 + self.signal if self.step < self.num_steps else 0


def train(config: TrainConfig) -> Outcome:
    """Train a student, or go on with it, and write it to --output.

    Raises:
        SoftLabelError: before the first step for whatever can't be right; later for a tar that
            turns out not to be the one that was labelled, and for a full disk.
    """
    return train_plan(make_plan(config))


AfterStep = Callable[[int, nn.Module], None]
"""Told how many steps are done, and shown the student, which it must leave as it was."""


def train_plan(plan: Plan, *, after_step: AfterStep | None = None) -> Outcome:
    """Train as planned; `after_step` may watch."""
    config = plan.config
    device = resolve_device(config.device)
    with stop_on_signals(grace_s=0.0) as stop, _exact(device):
        student = make_student(plan)
        training = make_training(plan, student, device)
        identity = plan.identity(student=student.identity)
        step, notes = resume(training, config.output, mode=config.resume, identity=identity)
        progress = Progress(
            "training", total=plan.num_steps, done=step, log_format=config.log_format
        )
        run = _Run(plan, student, training, identity, step, progress)
        with progress:
            for note in (*plan.notes, *student.notes, *notes):
                progress.say(note)
            run.until_done(stop, after_step)
            run.close()
    return Outcome(step=run.step, num_steps=plan.num_steps, signal=stop.signal)


class _Run:
    """A run at work: how far it is, and what it has to say and to save."""

    def __init__(
        self,
        plan: Plan,
        student: Student,
        training: Training,
        identity: Mapping[str, Any],
        step: int,
        progress: Progress,
    ) -> None:
        self.plan = plan
        self.step = step
        self._first_step = self._saved = step
        self._student = student
        self._training = training
        self._identity = identity
        self._progress = progress
        output = plan.config.output
        try:
            output.mkdir(parents=True, exist_ok=True)
            self._metrics = MetricsFile(output / FILE, step=step)
        except OSError as error:
            raise MachineError(f"--output {output}: can't be written: {error.strerror}") from None

    def until_done(self, stop: StopRequest, after_step: AfterStep | None) -> None:
        """Take all steps that are left, or those until somebody asks to stop."""
        plan = self.plan
        if self.step == plan.num_steps:
            return
        decoder, notes = open_decoder_of(plan)
        for note in notes:
            self._progress.say(note)
        loader = make_loader(plan)
        renderer = make_renderer(plan, self._student.recipe, decoder, loader.files)
        with stream(
            loader,
            renderer,
            make_settings(plan, self._training.device),
            first_step=self.step,
            ended=lambda: stop.requested,
        ) as batches:
            start = time.perf_counter()
            self._loop(batches, after_step)
            self._say_speed(time.perf_counter() - start, batches.waited_s)

    def _loop(self, batches: BatchStream, after_step: AfterStep | None) -> None:
        config = self.plan.config
        meter = Meter(self._training.device)
        details: dict[str, str] = {}
        for batch in batches:
            meter.add(*self._training.step(batch))
            self.step = batch.step + 1
            reached("step-taken")
            if after_step is not None:
                after_step(self.step, self._training.student)
            due = self.step % config.checkpoint_every == 0
            if due or self.step % config.log_interval == 0:
                details = self._write_row(meter, batches.waited_s)
            if due:
                self._save()
            self._progress.update(self.step, images=self._images_of_this_run, details=details)
        if self.step > self._saved:
            if self.step % config.log_interval:
                self._write_row(meter, batches.waited_s)
            self._save()

    def _write_row(self, meter: Meter, waited_s: float) -> dict[str, str]:
        """Every checkpoint has its row, so that a resumed run's rows are those of one unbroken."""
        config, plan = self.plan.config, self.plan
        means = meter.means(waited_s=waited_s)
        loss = (
            config.distill_loss_weight * means["kd_loss"]
            + config.task_loss_weight * means["task_loss"]
        )
        if not math.isfinite(loss):
            raise UsageError(
                f"the loss is {loss} at step {self.step:,}: training diverged; use a smaller --lr, "
                "or --warmup-steps, or --max-grad-norm"
            )
        images = min(self.step * config.batch_size, config.num_rows(plan.num_images))
        row = Row(
            step=self.step,
            epoch=images / plan.num_images,
            images=images,
            loss=loss,
            lr=self._training.schedule.learning_rate(self.step - 1),
            **means,
        )
        self._metrics.append(row)
        return {"loss": f"{loss:.4f}", "agreement": f"{row.agreement:.1%}"}

    def _save(self) -> None:
        state = snapshot(self._training, step=self.step, identity=self._identity)
        checkpoint.save(self.plan.config.output / checkpoint.FOLDER, state)
        self._saved = self.step

    @property
    def _images_of_this_run(self) -> int:
        return (self.step - self._first_step) * self.plan.config.batch_size

    def _say_speed(self, seconds: float, waited_s: float) -> None:
        rate = self._images_of_this_run / max(seconds, 1e-9)
        self._progress.say(
            f"time: {seconds:,.1f} s, {rate:,.0f} images/s; waiting for images "
            f"{waited_s / max(seconds, 1e-9):.0%}"
        )

    def close(self) -> None:
        """Write the student if it is done, and say what to do next."""
        config = self.plan.config
        if self.step < self.plan.num_steps:
            self._progress.say(
                f"interrupted after step {self.step:,} of {self.plan.num_steps:,}, which is safe; "
                "rerun the same command to go on"
            )
            return
        metrics = last_row(config.output / FILE)
        self._write_student(metrics)
        student = self._student
        self._progress.say(
            f"student: {config.output}, {student.name} with {student.num_parameters:,} parameters, "
            f"agrees with the teacher on {float(metrics['agreement']):.1%} of its last batches"
        )
        shards = shlex.join(config.shards)
        self._progress.say(
            f"next: kd-eval --student {config.output} --shards {shards} "
            f"--labels {config.labels} --output {config.output / 'eval'}"
        )

    def _write_student(self, metrics: Mapping[str, str]) -> None:
        plan, student = self.plan, self._student
        described = replace(
            fresh(student.name, plan.store.manifest.num_classes, student.recipe),
            class_names=plan.store.manifest.class_names,
            training=provenance(plan, student),
        )
        shown = {name: metrics[name] for name in ("kd_loss", "task_loss", "agreement")}
        card = model_card(described, parameters=student.num_parameters, metrics=shown)
        save_student(plan.config.output, self._training.student, described, card=card)


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """On the CPU: the same bits every time. On a GPU: the fastest convolutions."""
    if device.type != "cpu":
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = before
        return
    before = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = filled
