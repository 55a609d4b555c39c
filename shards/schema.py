"""The soft-label format, defined here and nowhere else; `VERSION` changes when bytes on disk do.

T tars, R rows a tar, V views a member, K classes stored a row, S temperatures, C classes, D
embedding width. The unit of work is a tar: one tar is one zarr shard in each array, one writer and
one commit. docs/format.md is generated from this file.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from softlabel.shards.errors import StoreError
from softlabel.shards.sealed import checksum

VERSION = 1
INNER_ROWS = 256
"""Rows of an inner chunk: the least that a reader decodes. R is a multiple of it."""

SMALLEST_LOGIT = -65504.0
"""The most negative finite float16; relative logits below it are stored as it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArraySpec:
    """One array: what a row of it holds."""

    name: str
    dtype: str
    axes: tuple[str, ...]
    """The axes after T and R, as letters: a row of `topk_logit` is (V, K)."""
    meaning: str


def array_specs(num_classes: int, *, embedding: bool) -> tuple[ArraySpec, ...]:
    """The arrays of a store, in the order in which they are written."""
    wide = "uint16" if num_classes <= 65_536 else "uint32"
    rows = [
        ("topk_logit", "float16", "VK", "z_i - z_max, descending, first is 0, clamped at -65504"),
        ("topk_class", wide, "VK", "class of each stored logit, unique within a row, below C"),
        (
            "tail_lse",
            "float32",
            "VS",
            "log of the sum over the classes not stored of exp((z_j - z_max) / t), for each stored "
            "temperature t; -inf when K = C",
        ),
        ("max_logit", "float32", "V", "z_max, for absolute logits"),
        (
            "status",
            "uint8",
            "",
            "0 unlabelled, 1 ok, 2 no image, 3 undecodable, 4 too large, "
            "5 non-finite logits, 6 quarantined",
        ),
        ("key_hash", "uint64", "", "xxh3-64 of the member's key"),
        ("image_hash", "uint64", "", "xxh3-64 of the image bytes; 0 without an image"),
        ("offset", "uint64", "", "first byte of the image in its tar"),
        ("size", "uint32", "", "bytes of the image"),
        ("target", "int32", "", "class from .cls, or integer field label of .json, else -1"),
    ]
    if embedding:
        rows.append(("embedding", "float16", "VD", "the teacher's embedding"))
    return tuple(ArraySpec(name=n, dtype=d, axes=tuple(a), meaning=m) for n, d, a, m in rows)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What decides the labels, and only that: immutable, and its checksum is the store id."""

    format_version: int = VERSION
    teacher_sha256: str
    """Sha256 of the ONNX file and its external data."""
    teacher_output: str
    teacher_output_kind: str
    """logits | softmax-removed | probabilities (then the logits are log(max(p, 1e-30)))."""
    embedding_output: str | None = None
    recipe: Mapping[str, Any]
    decoder: str
    max_image_pixels: int
    image_ext: tuple[str, ...]
    provider: str
    precision: str = "fp32"
    views: int
    view_recipe: str
    view_seed: int
    top_k: int
    """K: classes stored, at most `num_classes`."""
    temperatures: tuple[float, ...]
    num_classes: int
    class_names: tuple[str, ...] | None = None
    embedding_dim: int | None = None
    rows_per_tar: int

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_classes:
            raise ValueError(f"top_k must be in 1..{self.num_classes}, got {self.top_k}")
        if self.rows_per_tar < INNER_ROWS or self.rows_per_tar % INNER_ROWS:
            raise ValueError(f"rows_per_tar must be a multiple of {INNER_ROWS}")
        if self.views < 1 or not self.temperatures or min(self.temperatures) <= 0:
            raise ValueError("views and temperatures must be positive, at least one of each")

    @cached_property
    def store_id(self) -> str:
        """Sha256 of the canonical JSON: the name of these labels in commits and students."""
        return checksum(self.to_dict())

    @cached_property
    def arrays(self) -> tuple[ArraySpec, ...]:
        """The store's arrays."""
        return array_specs(self.num_classes, embedding=self.embedding_dim is not None)

    def row_shape(self, spec: ArraySpec) -> tuple[int, ...]:
        """Shape of one row of an array, its axes after T and R."""
        sizes = {
            "V": self.views,
            "K": self.top_k,
            "S": len(self.temperatures),
            "D": self.embedding_dim or 0,
        }
        return tuple(sizes[axis] for axis in spec.axes)

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON has it."""
        data = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Manifest":
        """Read a manifest; StoreError for another format version, a missing or unknown field."""
        if data.get("format_version") != VERSION:
            raise StoreError(
                f"manifest.json: wanted format version {VERSION}, found "
                f"{data.get('format_version')!r}; use the softlabel release that wrote the store"
            )
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            raise StoreError(
                f"manifest.json: wanted the fields of format version {VERSION}, "
                f"found these too many or missing: {sorted(names ^ set(data))}"
            )
        listed = ("temperatures", "class_names", "image_ext")
        values: dict[str, Any] = {
            k: tuple(v) if k in listed and v is not None else v for k, v in data.items()
        }
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise StoreError(f"manifest.json: {error}") from None


def differences(wanted: Manifest, found: Manifest) -> list[str]:
    """The fields in which two manifests differ, one `field: wanted, found` each."""
    a, b = wanted.to_dict(), found.to_dict()
    return [f"{k}: wanted {_short(a[k])}, the store has {_short(b[k])}" for k in a if a[k] != b[k]]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
