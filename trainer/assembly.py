"""A plan to the parts of a run: optimiser, objective, reader, renderer."""

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from softlabel.shards.decoders import DECODERS, Decoder, open_decoder
from softlabel.shards.disk import free_bytes
from softlabel.shards.errors import MachineError
from softlabel.shards.recipe import Recipe
from softlabel.trainer.first_weights import Student
from softlabel.trainer.labels import LabelReader, Sampling
from softlabel.trainer.loading import Loader
from softlabel.trainer.objective import Objective
from softlabel.trainer.optimisers import make_optimiser
from softlabel.trainer.order import WINDOW_TARS, Order
from softlabel.trainer.pixel_cache import PixelCache
from softlabel.trainer.plan import Plan
from softlabel.trainer.rendering import Renderer
from softlabel.trainer.schedule import make_schedule
from softlabel.trainer.stream import StreamSettings
from softlabel.trainer.tar_files import TarFiles
from softlabel.trainer.training import Normaliser, Training

_OWN_VIEWS = 1 << 63  # sets crops and flips of --augment apart from labelled ones of the same seed
_COPIES_ON_DISK = 12
"""Of the weights: three checkpoints with up to two numbers of state a weight, and the student."""


def resolve_device(name: str) -> torch.device:
    """The device that --device names; MachineError if there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise MachineError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


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
        order=Order(
            plan.counts,
            seed=config.seed,
            drawn=None if plan.sampler is None else plan.sampler.counts,
        ),
        tars=plan.tars,
        labels=LabelReader(
            plan.store,
            temperature=config.kd_temperature,
            with_tail=config.needs_tail,
            with_target=config.task_loss_weight > 0,
            sampling=_sampling(plan),
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


def _sampling(plan: Plan) -> Sampling | None:
    if plan.sampler is None:
        return None
    places = {tar: place for place, tar in enumerate(plan.tars)}
    sampler, correct = plan.sampler, plan.config.importance_correct

    def drawn(tar: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        times, factor = sampler.repeats(places[tar], epoch)
        return times, factor if correct else np.ones_like(factor)

    return drawn


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
        cache=PixelCache(int(config.pixel_cache_gb * 1e9)) if config.pixel_cache_gb else None,
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


def provenance(plan: Plan, student: Student) -> dict[str, Any]:
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
        "init": student.ancestor,
        "images": plan.num_images,
        "tars": len(plan.tars),
        "steps": plan.num_steps,
        "versions": {name: version(name) for name in ("softlabel", "torch", "torchvision")},
    }


_RECORDED = (
    "batch_size", "lr", "opt", "momentum", "weight_decay", "sched", "warmup_steps",
    "kd_temperature", "tail", "distill_loss_weight", "task_loss_weight", "smoothing", "augment",
    "max_grad_norm", "amp", "seed", "sample", "balance_gamma", "balance_anneal", "source_by",
    "source_weight", "confidence_beta", "confidence_score", "importance_correct",
)  # fmt: skip


def _require_space(output: Path, student: Student) -> None:
    needed = _COPIES_ON_DISK * 4 * student.num_parameters
    if (free := free_bytes(output)) < needed:
        raise MachineError(
            f"--output {output}: student and checkpoints take up to {needed / 1e9:,.2f} GB, the "
            f"disk has {free / 1e9:,.2f} GB free; make room, or use another --output"
        )
