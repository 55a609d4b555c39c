"""Everything an evaluation can be told, with its defaults and checks."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """The flags of kd-eval."""

    student: Path
    """Folder of the student, made by kd-train."""

    shards: tuple[str, ...]
    """WebDataset tars to evaluate on: braces, `::`, a folder, a list file, `-`; paths or URLs."""

    output: Path
    """Folder for evaluation.json and report.html; with --teacher its labels are kept there too."""

    teacher: Path | None = None
    """ONNX teacher to label the tars with first (all classes up to 1,000, else the first 64).
    Either this or --labels."""

    labels: Path | None = None
    """Label store that holds the tars already. Either this or --teacher."""

    control: Path | None = None
    """Folder of a second student, to be compared with: trained on hard labels, say."""

    recipe: Path | None = None
    """The teacher's preprocessing as JSON, where its ONNX metadata has none."""

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
        for name, value in (("batch-size", self.batch_size), ("workers", self.workers or 1)):
            if value < 1:
                raise ValueError(f"--{name}: wanted at least 1, found {value}")

    @property
    def num_workers(self) -> int:
        """Reading and decoding threads."""
        return self.workers or len(os.sched_getaffinity(0))
