"""What kd-bench kernel measures: shapes, the loss, where."""

from dataclasses import dataclass
from typing import Literal

Tail = Literal["bucket", "uniform", "renorm", "truncate", "subset"]
DType = Literal["fp32", "bf16", "fp16"]
Device = Literal["auto", "cpu", "cuda"]

STANDARD_SHAPES = ((1024, 1000), (8192, 1000), (4096, 21_841), (4096, 32_000), (2048, 151_936))
"""Rows and classes: ImageNet at two batch sizes, ImageNet-21k, and two vocabularies."""

LINEAR_SHAPES = ((4096, 768, 21_841), (4096, 4096, 32_000), (2048, 4096, 151_936))
"""Rows, features and classes."""


@dataclass(frozen=True, kw_only=True)
class KernelBench:
    """Shapes, the loss, and how it is measured."""

    rows: int = 1024
    """Rows of logits."""
    classes: int = 21_841
    """Classes; the peers' logits have as many columns."""
    width: int | None = None
    """Columns of our logits; None pads 256 classes and more to a multiple of 64."""
    top_k: int = 16
    """Stored classes a row."""
    tail: Tail = "uniform"
    """What the loss makes of the classes not stored. Peers that cannot express it are left out."""
    temperature: float = 1.0
    """Softmax temperature of the soft part."""
    hard: float = 0.0
    """Weight of a cross-entropy with class labels; 0 leaves it out."""
    dtype: DType = "fp32"
    """Of the logits and their gradient."""
    device: Device = "auto"
    """auto is cuda where there is one."""
    repeats: int | None = None
    """Interleaved repeats; None is 15 to 200 on a CPU, 60 on a GPU."""
    compile: bool = True
    """Measure what torch.compile makes of the peers; its first calls take seconds."""
    memory: bool = True
    """Measure peak extra memory; on a CPU in a process of its own."""
    linear: bool = False
    """Measure `linear_sparse_kl`, the last layer and its loss in one, instead."""
    features: int = 768
    """Columns of the last layer's input, for --linear."""
    all_shapes: bool = False
    """All the standard shapes, instead of --rows, --classes and --features."""

    def __post_init__(self) -> None:
        if min(self.rows, self.classes, self.features) < 1:
            raise ValueError("rows, classes and features must be at least 1")
        if not 1 <= self.top_k < self.classes:
            raise ValueError(
                f"top_k must be at least 1 and less than classes, got {self.top_k} "
                f"and {self.classes}"
            )
        if self.width is not None and self.width < self.classes:
            raise ValueError(f"width must be at least classes, got {self.width}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.hard < 0:
            raise ValueError(f"hard must not be negative, got {self.hard}")
        if self.repeats is not None and self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")


def padded(classes: int) -> int:
    """The columns a head should have: rows then start where wide accesses may."""
    return classes if classes < 256 else -(-classes // 64) * 64
