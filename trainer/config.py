"""Everything a training run can be told, with its defaults and checks."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

DEFAULT_EPOCHS = 10


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The flags of kd-train; names and meanings are timm's where timm has them."""

    shards: tuple[str, ...]
    """The tars that were labelled, or some of them, wherever they lie now: braces, `::`, a folder,
    a list file, `-`; paths or fsspec URLs."""

    labels: Path
    """Folder of the label store, made by kd-label."""

    student: str | None = None
    """softlabel/small-cnn, torchvision/NAME, timm/NAME, pkg.module:factory (called with
    num_classes), or a folder that kd-train wrote, which is then --init. Needed without --init."""

    init: Path | None = None
    """Begin from the weights of this folder's student, made by kd-train on whatever images, with
    this run's own schedule; --student may be left out, or must name the same architecture."""

    output: Path
    """Folder for the student, metrics.csv and checkpoints. An unfinished run there is resumed."""

    epochs: int | None = None
    """Passes over the images; 10 if neither --epochs nor --steps is given."""

    steps: int | None = None
    """Optimisation steps, instead of --epochs."""

    batch_size: int = 128
    """Images a step, over all processes together (unlike timm, where it is per process)."""

    img_size: int | None = None
    """The student's input height and width; default: the teacher's, or the student folder's."""

    lr: float = 0.1
    """Peak learning rate."""

    opt: Literal["sgd", "momentum", "adam", "adamw", "nadam", "radam", "rmsprop"] = "sgd"
    """Optimiser of torch.optim; sgd has Nesterov's momentum, momentum the plain one."""

    momentum: float = 0.9
    """Momentum of sgd, momentum and rmsprop."""

    weight_decay: float = 5e-4
    """Not applied to biases and normalisation layers."""

    sched: Literal["cosine", "onecycle", "constant"] = "cosine"
    """How the learning rate falls: cosine to 0, one cycle (up, then down), or not."""

    warmup_steps: int | None = None
    """Steps of linear rise; default 0; for onecycle the rising part, default 30 % of all."""

    kd_temperature: float = 1.0
    """Softmax temperature of teacher and student."""

    tail: Literal["bucket", "uniform", "renorm", "truncate", "subset"] = "bucket"
    """What the loss makes of the classes that were not stored. bucket: one class together; uniform:
    their mass spread evenly; renorm: nothing, the stored ones are the teacher's whole distribution;
    truncate: nothing, and the stored ones keep their probabilities (not a divergence: may be
    negative); subset: nothing, and the student's too are left out."""

    distill_loss_weight: float = 1.0
    """Weight of the divergence from the teacher."""

    task_loss_weight: float = 0.0
    """Weight of the cross-entropy with the tars' own class labels, where an image has one."""

    smoothing: float = 0.0
    """Label smoothing of that cross-entropy: the share spread evenly over all classes."""

    pad_head: int = 64
    """Train with the student's last layer widened to a multiple of so many outputs, for which the
    loss kernel is fastest; 1: not. For 256 classes or more. The added ones stay zero, and the
    student is saved without them."""

    sample: Literal["uniform", "balanced"] = "uniform"
    """uniform: every image once an epoch. balanced: images of classes that the teacher seldom
    names come more often, those of frequent ones less, by (share of the class)**-gamma."""

    balance_gamma: float = 1.0
    """The exponent of --sample balanced at the beginning; 1 shows all classes alike."""

    balance_anneal: float | None = 0.5
    """Share of the run over which that exponent falls to 0; None: it stays."""

    source_by: str = "name"
    """What a source of images is. name: the tar's file name without its number; tar: each tar;
    path:REGEX, key:REGEX: the first group in the tar's path when it was labelled, or in the
    member's key; json:FIELD: a field of the member's .json."""

    source_weight: tuple[str, ...] = ()
    """How often a source's images come: NAME=W ... (others 1; 0 leaves a source out), or `classes`:
    by the share of the teacher's classes that the source covers."""

    confidence_beta: float = 0.0
    """Prefer images of which the teacher is sure, by exp(beta (rank - 1)); 0: not. Measured, it
    slowed training down on one collection and helped on another: docs/results.md."""

    confidence_score: Literal["p1", "entropy", "energy", "max-logit"] = "p1"
    """What --confidence-beta ranks by."""

    importance_correct: bool = False
    """Multiply each image's loss by mean weight / weight, which undoes what sampling does to the
    objective, at the price of noise."""

    augment: Literal["none", "crop-flip", "rrc", "rrc-flip"] = "none"
    """Crop and flip the student's images otherwise than the teacher saw them, new each epoch;
    none: replay the labelled views."""

    max_grad_norm: float | None = None
    """Clip the gradient's norm to this."""

    amp: Literal["none", "bf16", "fp16"] = "none"
    """Mixed precision by torch.autocast; fp16 with loss scaling."""

    channels_last: bool = False
    """Keep the student in channels-last memory format."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: CUDA where a GPU is, then CPU."""

    workers: int | None = None
    """Reading and decoding threads; default: one a core. They never change the result."""

    cache_dir: Path | None = None
    """Folder that keeps remote tars; default: a temporary one, removed at the end."""

    cache_gb: float = 32.0
    """Remote tars kept locally, in GB; those at work are kept in any case."""

    pixel_cache_gb: float = 0.0
    """Memory for decoded views that come again, in GB: for collections of small images that fit.
    It never changes the result."""

    checkpoint_every: int = 1000
    """Steps between checkpoints; the last two are kept. Ctrl-C and SIGTERM write one too."""

    resume: str = "auto"
    """auto: go on from the newest whole checkpoint in --output; never: start over and delete what
    is there; PATH: start from that checkpoint."""

    on_missing: Literal["error", "skip"] = "error"
    """For tars in --shards without labels, unknown to the store or not labelled yet: stop, or
    leave them out. Images that could not be labelled are left out always."""

    allow_partial: bool = False
    """Train on what an unfinished store has so far; a tar unknown to it still stops the run."""

    seed: int = 0
    """Seed of initial weights, order and --augment."""

    log_interval: int = 50
    """Steps between rows of metrics.csv."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """auto: a progress bar on a terminal, else a line every 30 s."""

    dry_run: bool = False
    """Say what would be done, read no image, train nothing."""

    config: Annotated[Path | None, tyro.conf.arg(help="YAML file of these flags.")] = None

    def __post_init__(self) -> None:
        if self.student is None and self.init is None:
            raise ValueError("wanted --student NAME, or --init DIR to go on with a student")
        if self.epochs is not None and self.steps is not None:
            raise ValueError("wanted --epochs or --steps, found both")
        self._check_counts()
        self._check_numbers()
        if self.distill_loss_weight == self.task_loss_weight == 0:
            raise ValueError("--distill-loss-weight and --task-loss-weight are both 0")
        self._check_sampling()
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"--seed: wanted 0 to 2**63 - 1, found {self.seed}")

    def _check_counts(self) -> None:
        at_least_one = (
            "epochs", "steps", "batch_size", "pad_head", "img_size", "workers", "checkpoint_every",
            "log_interval",
        )  # fmt: skip
        for name in at_least_one:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{flag(name)}: wanted at least 1, found {value}")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ValueError(f"--warmup-steps: wanted at least 0, found {self.warmup_steps}")

    def _check_numbers(self) -> None:
        for name in ("lr", "kd_temperature", "max_grad_norm", "cache_gb"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{flag(name)}: wanted a positive number, found {value}")
        for name in ("weight_decay", "distill_loss_weight", "task_loss_weight", "pixel_cache_gb"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{flag(name)}: wanted a number from 0, found {value}")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"--smoothing: wanted 0 to below 1, found {self.smoothing}")
        if self.smoothing and not self.task_loss_weight:
            raise ValueError("--smoothing is for class labels: it needs --task-loss-weight above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"--momentum: wanted 0 to below 1, found {self.momentum}")
        if self.opt == "sgd" and self.momentum == 0:
            raise ValueError("--opt sgd has Nesterov's momentum: for none, --opt momentum")

    def _check_sampling(self) -> None:
        for name, most in (("balance_gamma", 10.0), ("confidence_beta", 100.0)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"{flag(name)}: wanted 0 to {most:g}, found {value}")
        if self.sample == "balanced" and not self.balance_gamma:
            raise ValueError("--balance-gamma 0: balances nothing; use --sample uniform")
        if self.sample == "uniform" and (self.balance_gamma, self.balance_anneal) != (1.0, 0.5):
            raise ValueError("--balance-gamma and --balance-anneal are for --sample balanced")
        if self.confidence_score != "p1" and not self.confidence_beta:
            raise ValueError("--confidence-score: ranks nothing without --confidence-beta above 0")
        if self.source_by != "name" and not self.weighted:
            raise ValueError(
                "--source-by: changes nothing here; it is for --source-weight, --sample balanced "
                "and --confidence-beta"
            )
        if self.balance_anneal is not None and not 0 < self.balance_anneal <= 1:
            raise ValueError(
                f"--balance-anneal: wanted None, or above 0 to 1, found {self.balance_anneal}"
            )
        if self.importance_correct and not self.weighted:
            raise ValueError(
                "--importance-correct: undoes weights, and there are none; add --sample balanced, "
                "--source-weight or --confidence-beta"
            )

    def num_steps(self, num_images: int) -> int:
        """Steps of the whole run; the last one of --epochs may be padded."""
        if self.steps is not None:
            return self.steps
        return -(-self.num_rows(num_images) // self.batch_size)

    def num_rows(self, num_images: int) -> int:
        """Images that count, over the whole run: positions of the order that have a weight."""
        if self.steps is not None:
            return self.steps * self.batch_size
        return (self.epochs or DEFAULT_EPOCHS) * num_images

    @property
    def needs_tail(self) -> bool:
        """Whether the loss looks at the mass of the classes that were not stored."""
        return self.distill_loss_weight > 0 and self.tail not in ("renorm", "subset")

    @property
    def begun_from(self) -> Path | None:
        """The folder of the student whose weights are the first ones; None for fresh weights."""
        if self.init is None and self.student is not None and Path(self.student).is_dir():
            return Path(self.student)
        return self.init

    @property
    def weighted(self) -> bool:
        """Whether images come otherwise than once an epoch each."""
        return bool(self.sample == "balanced" or self.source_weight or self.confidence_beta)

    @property
    def num_workers(self) -> int:
        """Reading and decoding threads."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def consistent(self) -> bool:
        """Whether the student sees what the teacher saw, wherever it learns from it."""
        return self.augment == "none" or self.distill_loss_weight == 0


def flag(name: str) -> str:
    """A field's name as its flag."""
    return "--" + name.replace("_", "-")
