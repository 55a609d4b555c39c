"""Everything a labelling run can be told, with its defaults and checks."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

DEFAULT_ROWS_PER_TAR = 16_384


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """The flags of kd-label."""

    teacher: Path
    """ONNX image classifier: one image input, output (N, C)."""

    shards: tuple[str, ...]
    """WebDataset tars: braces, `::`, a folder, a list file, `-`; paths or fsspec URLs."""

    out: Path
    """Folder of the label store. An unfinished one is resumed."""

    recipe: Path | None = None
    """Preprocessing as JSON (timm's pretrained_cfg); default: what stands in the ONNX metadata."""

    top_k: int = 16
    """Classes stored per view; all of them if the teacher has fewer."""

    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    """Temperatures at which the rest of the distribution (tail) is stored exactly."""

    views: int = 1
    """Views per image."""

    view_recipe: Literal["center", "crop-flip", "rrc", "rrc-flip"] = "center"
    """How a view is cropped and flipped; center has one view."""

    seed: int = 0
    """Seed of the views."""

    embedding: str | None = None
    """Also store this output (or inner tensor) of the teacher, [N, D]."""

    output: str | None = None
    """The output that holds the logits, where the teacher has several."""

    class_names: Path | None = None
    """Class names, one a line, or a JSON list."""

    batch_size: str = "auto"
    """Images a teacher call; auto measures among sizes with bit-equal results."""

    workers: int | None = None
    """Decoding threads; default: one a core."""

    decoder: Literal["auto", "torchvision", "pillow"] = "auto"
    """Image decoder; auto: torchvision where it is installed, then pillow."""

    providers: Literal["auto", "cpu", "cuda", "tensorrt"] = "auto"
    """Where the teacher runs; auto: CUDA where a GPU is, then CPU. Never a silent fallback."""

    part: str | None = None
    """i/n: label only the i-th of n parts of the tars (1-based), for job arrays."""

    rows_per_tar: int | None = None
    """Rows reserved a tar; default: the largest tar rounded up to a power of two, remote 16384."""

    max_image_pixels: int = 64_000_000
    """Larger images get the status `too large`, before they are decoded."""

    image_ext: tuple[str, ...] = ("jpg", "jpeg", "png", "webp")
    """File name extensions that are images."""

    max_bad_rate: float = 0.01
    """Exit code 3 if more than this share of images can't be labelled."""

    overwrite: bool = False
    """Delete the store at --out and start over."""

    allow_pipe: bool = False
    """Allow `pipe:` tars, which run shell commands."""

    grace: float = 30.0
    """Seconds that the first Ctrl-C or SIGTERM leaves for finishing the tar at work."""

    dry_run: bool = False
    """Say what would be done, how large and how long; write nothing."""

    log_format: Literal["auto", "text", "json"] = "auto"
    """auto: a progress bar on a terminal, else a line every 30 s."""

    config: Annotated[Path | None, tyro.conf.arg(help="YAML file of these flags.")] = None

    def __post_init__(self) -> None:
        positive = {"top_k": self.top_k, "views": self.views, "workers": self.workers or 1}
        positive |= {"max_image_pixels": self.max_image_pixels}
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{flag(name)}: wanted at least 1, found {value}")
        if not self.temperatures or not all(0 < t < float("inf") for t in self.temperatures):
            raise ValueError(f"--temperatures: wanted positive numbers, found {self.temperatures}")
        if len(set(self.temperatures)) < len(self.temperatures):
            raise ValueError(f"--temperatures: each once, found {self.temperatures}")
        if self.view_recipe == "center" and self.views > 1:
            raise ValueError(
                f"--views: wanted 1 with --view-recipe center, found {self.views}; "
                "name crop-flip, rrc or rrc-flip for more"
            )
        if self.batch_size != "auto" and not (
            self.batch_size.isdigit() and int(self.batch_size) > 0
        ):
            raise ValueError(f"--batch-size: wanted auto or a number, found {self.batch_size!r}")
        if not 0 <= self.max_bad_rate <= 1:
            raise ValueError(f"--max-bad-rate: wanted 0 to 1, found {self.max_bad_rate}")
        if self.rows_per_tar is not None and (self.rows_per_tar < 256 or self.rows_per_tar % 256):
            raise ValueError(f"--rows-per-tar: wanted a multiple of 256, found {self.rows_per_tar}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"--seed: wanted 0 to 2**64 - 1, found {self.seed}")
        self.my_part(0)

    def my_part(self, tar: int) -> bool:
        """Whether a tar belongs to this run's --part."""
        if self.part is None:
            return True
        try:
            i, n = (int(number) for number in self.part.split("/"))
        except ValueError:
            i, n = 0, 0
        if not 1 <= i <= n:
            raise ValueError(f"--part: wanted i/n with 1 <= i <= n, found {self.part!r}")
        return tar % n == i - 1

    @property
    def num_workers(self) -> int:
        """Decoding threads."""
        return self.workers or len(os.sched_getaffinity(0))


def flag(name: str) -> str:
    """A field's name as its flag."""
    return "--" + name.replace("_", "-")
