"""Everything an evaluation can be told, with its defaults and checks."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

Degradation = Literal[
    "none",
    "all",
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "gaussian_blur",
    "contrast",
    "brightness",
    "pixelate",
    "jpeg",
    "dropout",
]
AttackName = Literal["none", "all", "fgsm", "pgd"]


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """The flags of kd-eval."""

    student: Path
    """Folder of the student, made by kd-train."""

    shards: tuple[str, ...]
    """WebDataset tars to evaluate on: braces, `::`, a folder, a list file, `-`; paths or URLs."""

    output: Path
    """Folder for evaluation.json, evaluation.md and report.html; with --teacher its labels are kept
    there too."""

    teacher: Path | None = None
    """ONNX teacher to label the tars with first (all classes up to 1,000, else the first 64).
    Either this or --labels."""

    labels: Path | None = None
    """Label store that holds the tars already. Either this or --teacher."""

    control: Path | None = None
    """Folder of a second student, to be compared with: a student trained in the same way on an
    independent teacher's labels (Stanton et al. 2021), or a baseline."""

    ood_shards: tuple[str, ...] = ()
    """Tars of images that are not of the collection: how well does a model know them from those of
    --shards?"""

    ood_labels: Path | None = None
    """The teacher's labels of --ood-shards, for its own scores where --labels is given."""

    degradations: tuple[Degradation, ...] = ("none",)
    """Noise, blur and the like, at five severities, that models are tried on; or all of them."""

    attacks: tuple[AttackName, ...] = ("none",)
    """Attacks on the student (and the control): fgsm, pgd or all."""

    attack_eps: float = 8 / 255
    """Largest change of a pixel's value by an attack, of 0 to 1."""

    attack_steps: int = 10
    """Steps of pgd."""

    attack_step_size: float | None = None
    """Length of a step of pgd; default: 2.5 * eps / steps."""

    attack_restarts: int = 1
    """Random starts of pgd; the worst counts."""

    stress_images: int = 1000
    """Images that are degraded and attacked; always the same, chosen by their keys."""

    recipe: Path | None = None
    """The teacher's preprocessing as JSON, where its ONNX metadata has none."""

    embedding: str | None = None
    """Output (or inner tensor) of the teacher, [N, D], to compare the student's features with; of
    --labels the stored one is used."""

    factory: tuple[str, ...] = ()
    """pkg.module:factory that may be called, for a student that was built by it."""

    batch_size: int = 64
    """Images a call of the student and of the control."""

    workers: int | None = None
    """Reading and decoding threads; default: one a core."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the models run; auto: CUDA where a GPU is, then CPU."""

    allow_pipe: bool = False
    """Allow `pipe:` tars, which run shell commands."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """auto: a progress bar on a terminal, else a line every 30 s. json: the result too."""

    config: Annotated[Path | None, tyro.conf.arg(help="YAML file of these flags.")] = None

    def __post_init__(self) -> None:
        if (self.teacher is None) == (self.labels is None):
            found = "neither" if self.teacher is None else "both"
            raise ValueError(f"wanted one of --teacher T.onnx and --labels STORE, found {found}")
        if self.recipe is not None and self.teacher is None:
            raise ValueError("--recipe: only for --teacher; a label store has its own")
        if self.embedding is not None and self.teacher is None:
            raise ValueError("--embedding: only for --teacher; a label store has its own or none")
        if self.ood_labels is not None and (self.labels is None or not self.ood_shards):
            raise ValueError("--ood-labels: only beside --labels and --ood-shards")
        counts = {
            "batch-size": self.batch_size,
            "workers": 1 if self.workers is None else self.workers,
            "attack-steps": self.attack_steps,
            "attack-restarts": self.attack_restarts,
            "stress-images": self.stress_images,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"--{name}: wanted at least 1, found {value}")
        if not 1 / 255 <= self.attack_eps <= 1:
            raise ValueError(f"--attack-eps: wanted 1/255 to 1, found {self.attack_eps:g}")
        if self.attack_step_size is not None and not self.attack_step_size > 0:
            raise ValueError(f"--attack-step-size: wanted above 0, found {self.attack_step_size:g}")
        _named("degradations", self.degradations, Degradation)
        _named("attacks", self.attacks, AttackName)
        if not self.attack_kinds:
            for name in ("attack_eps", "attack_steps", "attack_step_size", "attack_restarts"):
                self._refuse(name, "--attacks")
            if not self.degradation_kinds:
                self._refuse("stress_images", "--attacks or --degradations")

    def _refuse(self, name: str, beside: str) -> None:
        """A flag that would do nothing."""
        if getattr(self, name) != type(self).__dataclass_fields__[name].default:
            raise ValueError(f"--{name.replace('_', '-')}: only beside {beside}")

    @property
    def degradation_kinds(self) -> tuple[str, ...]:
        """Those wanted, in their own order."""
        return _named("degradations", self.degradations, Degradation)

    @property
    def attack_kinds(self) -> tuple[str, ...]:
        """Those wanted, in their own order."""
        return _named("attacks", self.attacks, AttackName)

    @property
    def num_workers(self) -> int:
        """Reading and decoding threads."""
        return self.workers or len(os.sched_getaffinity(0))


def _named(flag: str, given: tuple[str, ...], known: Any) -> tuple[str, ...]:
    """Names that were given, `none` and `all` resolved; ValueError for others beside those."""
    _, _, *names = get_args(known)
    if len(given) > 1 and not {"none", "all"}.isdisjoint(given):
        raise ValueError(f"--{flag}: wanted none, all or names, found {' '.join(given)}")
    return tuple(name for name in names if name in given or "all" in given)
