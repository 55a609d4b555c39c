"""A plan to the parts of a run: student, optimiser, reader. The first module that loads torch."""

from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from softlabel.shards.decoders import DECODERS, Decoder, open_decoder
from softlabel.shards.disk import free_bytes
from softlabel.shards.errors import IdentityError, MachineError
from softlabel.shards.hashing import sha256_of_file
from softlabel.shards.recipe import Recipe
from softlabel.trainer.head_padding import pad_head
from softlabel.trainer.labels import LabelReader
from softlabel.trainer.loading import Loader
from softlabel.trainer.objective import Objective
from softlabel.trainer.optimisers import make_optimiser
from softlabel.trainer.order import WINDOW_TARS, Order
from softlabel.trainer.plan import Plan
from softlabel.trainer.rendering import Renderer
from softlabel.trainer.schedule import make_schedule
from softlabel.trainer.stream import StreamSettings
from softlabel.trainer.student_files import (
    WEIGHTS,
    StudentConfig,
    load_student,
    read_student_config,
)
from softlabel.trainer.tar_files import TarFiles
from softlabel.trainer.training import Normaliser, Training, seed_torch

_OWN_VIEWS = 1 << 63  # sets crops and flips of --augment apart from labelled ones of the same seed
_COPIES_ON_DISK = 12
"""Of the weights: three checkpoints with up to two numbers of state a weight, and the student."""


@dataclass(frozen=True, kw_only=True)
class Student:
    """The module and what is known of it."""

    module: nn.Module
    name: str
    recipe: Recipe
    identity: str
    """The name, and the sha256 of the weights it starts from, if any."""
    num_parameters: int
    """Trained numbers, without those that only widen its last layer."""
    notes: tuple[str, ...]
    """Lines to say before the first step."""


def resolve_device(name: str) -> torch.device:
    """The device that --device names; MachineError if there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def make_student(plan: Plan) -> Student:
    """The student with its first weights, its last layer widened, on the CPU.

    Raises:
        UsageError: no such student, or one that can't take these images.
        IdentityError: a folder's student has another number of classes.
    """
    config, num_classes = plan.config, plan.store.manifest.num_classes
    seed_torch(config.seed, 0)
    folder = Path(config.student)
    if folder.is_dir():
        found = read_student_config(folder)
        if found.num_classes != num_classes:
            raise IdentityError(
                f"--student {folder}: has {found.num_classes} classes, the labels {num_classes}"
            )
        recipe = _resized(found.recipe, config.img_size)
        module, _ = load_student(folder, recipe=recipe)
        name = found.name
        identity = f"{name} from weights {sha256_of_file(folder / WEIGHTS)[:12]}"
    else:
        recipe = _resized(_as_rgb(plan.recipe), config.img_size)
        name = identity = config.student
        module = fresh(name, num_classes, recipe).build()
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    notes = pad_head(
        module,
        num_classes=num_classes,
        multiple=config.pad_head,
        height=recipe.height,
        width=recipe.width,
    )
    return Student(
        module=module.train(),
        name=name,
        recipe=recipe,
        identity=identity,
        num_parameters=num_parameters,
        notes=tuple(notes),
    )


def fresh(name: str, num_classes: int, recipe: Recipe) -> StudentConfig:
    """A student of which nothing but its making is known yet."""
    return StudentConfig(
        name=name, num_classes=num_classes, recipe=recipe, class_names=None, training={}
    )


def make_training(plan: Plan, student: Student, device: torch.device) -> Training:
    """The student on its device with all that trains it; MachineError if the disk is too small."""
    config = plan.config
    _require_space(config.output, student)
    module = student.module.to(device)
    if config.channels_last:
        module = module.to(memory_format=torch.channels_last)
    return Training(
        student=module,
        optimiser=make_optimiser(
            config.opt,
            module,
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=config.amp == "fp16"),
        objective=Objective(
            temperature=config.kd_temperature,
            tail=config.tail,
            distill_weight=config.distill_loss_weight,
            task_weight=config.task_loss_weight,
            smoothing=config.smoothing,
            num_classes=plan.store.manifest.num_classes,
        ),
        schedule=make_schedule(
            config.sched,
            peak=config.lr,
            num_steps=plan.num_steps,
            warmup_steps=config.warmup_steps,
        ),
        normalise=Normaliser(student.recipe, device, channels_last=config.channels_last),
        device=device,
        amp=config.amp,
        max_grad_norm=config.max_grad_norm,
        seed=config.seed,
    )


def make_loader(plan: Plan) -> Loader:
    """Labels and encoded images in the order of training."""
    config = plan.config
    return Loader(
        order=Order(plan.counts, seed=config.seed),
        tars=plan.tars,
        labels=LabelReader(
            plan.store,
            temperature=config.kd_temperature,
            with_tail=config.needs_tail,
            with_target=config.task_loss_weight > 0,
            # The window at work, the next, and the last of the epoch before.
            capacity=3 * WINDOW_TARS,
        ),
        files=TarFiles(
            plan.urls,
            {tar: commit.tar_size for tar, commit in plan.commits.items()},
            cache_dir=config.cache_dir,
            cache_bytes=int(config.cache_gb * 1e9),
        ),
    )


def make_renderer(plan: Plan, recipe: Recipe, decoder: Decoder, files: TarFiles) -> Renderer:
    """The labelled views, or --augment's, at the student's size."""
    config, manifest = plan.config, plan.store.manifest
    own = config.augment != "none"
    return Renderer(
        decoder=decoder,
        view_recipe=config.augment if own else manifest.view_recipe,
        view_seed=config.seed | _OWN_VIEWS if own else manifest.view_seed,
        teacher=plan.recipe,
        height=recipe.height,
        width=recipe.width,
        interpolation=recipe.interpolation,
        files=files,
    )


def make_settings(plan: Plan, device: torch.device) -> StreamSettings:
    """What the stream of batches is to do."""
    config = plan.config
    return StreamSettings(
        batch_size=config.batch_size,
        num_steps=plan.num_steps,
        num_rows=config.num_rows(plan.num_images),
        workers=config.num_workers,
        replay=config.augment == "none",
        pin_memory=device.type == "cuda",
    )


def open_decoder_of(plan: Plan) -> tuple[Decoder, list[str]]:
    """The decoder that made the labels, or another one with a line that says so."""
    manifest = plan.store.manifest
    try:
        return open_decoder(manifest.decoder, max_pixels=manifest.max_image_pixels), []
    except MachineError as error:
        other = next(name for name in DECODERS if name != manifest.decoder)
        note = (
            f"warning: the labels were made with decoder {manifest.decoder}, which is not to be "
            f"had here ({error}); {other} gives slightly other pixels"
        )
        return open_decoder(other, max_pixels=manifest.max_image_pixels), [note]


def provenance(plan: Plan) -> dict[str, Any]:
    """What config.json says of a student's training."""
    config, manifest = plan.config, plan.store.manifest
    return {
        **{name: value for name, value in asdict(config).items() if name in _RECORDED},
        "store_id": plan.store.store_id,
        "teacher_sha256": manifest.teacher_sha256,
        "view_recipe": manifest.view_recipe,
        "views": manifest.views,
        "top_k": manifest.top_k,
        "consistent": config.consistent,
        "images": plan.num_images,
        "tars": len(plan.tars),
        "steps": plan.num_steps,
        "versions": {name: version(name) for name in ("softlabel", "torch", "torchvision")},
    }


_RECORDED = (
    "batch_size", "lr", "opt", "momentum", "weight_decay", "sched", "warmup_steps",
    "kd_temperature", "tail", "distill_loss_weight", "task_loss_weight", "smoothing", "augment",
    "max_grad_norm", "amp", "seed",
)  # fmt: skip


def _as_rgb(recipe: Recipe) -> Recipe:
    """Students see RGB; a BGR teacher's mean and std stand the other way round."""
    if recipe.channels == "rgb":
        return recipe
    return replace(recipe, channels="rgb", mean=recipe.mean[::-1], std=recipe.std[::-1])


def _resized(recipe: Recipe, img_size: int | None) -> Recipe:
    return recipe if img_size is None else replace(recipe, input_size=(3, img_size, img_size))


def _require_space(output: Path, student: Student) -> None:
    needed = _COPIES_ON_DISK * 4 * student.num_parameters
    if (free := free_bytes(output)) < needed:
        raise MachineError(
            f"--output {output}: student and checkpoints take up to {needed / 1e9:,.2f} GB, the "
            f"disk has {free / 1e9:,.2f} GB free; make room, or use another --output"
        )
