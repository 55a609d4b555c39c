"""Stores made of dense logits, with the logits kept for an independent count."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabel.shards.schema import Manifest
from softlabel.shards.store import Store

TEMPERATURES = (1.0, 4.0)


def stats_manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "teacher_sha256": "ab" * 32,
        "teacher_output": "logits",
        "teacher_output_kind": "logits",
        "recipe": {"input_size": [3, 16, 16]},
        "decoder": "torchvision",
        "max_image_pixels": 10**6,
        "image_ext": ("png",),
        "provider": "cpu",
        "views": 1,
        "view_recipe": "center",
        "view_seed": 0,
        "top_k": 3,
        "temperatures": TEMPERATURES,
        "num_classes": 6,
        "rows_per_tar": 256,
    }
    return Manifest(**{**fields, **changes})


def dense_logits(num_rows: int, *, seed: int, views: int = 1, spread: int = 40) -> np.ndarray:
    """[n, V, 6] float64 with exact float16 differences and no two equal in a row."""
    rng = np.random.default_rng(seed)
    z = rng.integers(-spread, spread + 1, (num_rows, views, 6)) / 8
    return z + np.arange(6) / 64


def rows_of(m: Manifest, z: np.ndarray, **changes: Any) -> dict[str, np.ndarray]:
    """A tar's rows; key and image hashes are drawn from the logits unless given."""
    n, K = len(z), m.top_k
    order = np.argsort(-z, axis=-1)
    top = np.take_along_axis(z, order, -1)
    relative = top - top[..., :1]
    with np.errstate(divide="ignore"):
        tails = [np.log(np.exp(relative[..., K:] / t).sum(-1)) for t in m.temperatures]
    rng = np.random.default_rng(abs(int(1000 * z.sum())) + n)
    rows = {
        "topk_logit": relative[..., :K].astype(np.float16),
        "topk_class": order[..., :K].astype(np.uint16),
        "tail_lse": np.stack(tails, -1).astype(np.float32),
        "max_logit": top[..., 0].astype(np.float32),
        "status": np.ones(n, np.uint8),
        "key_hash": rng.integers(0, 2**63, n).astype(np.uint64),
        "image_hash": rng.integers(0, 2**63, n).astype(np.uint64),
        "offset": np.zeros(n, np.uint64),
        "size": np.zeros(n, np.uint32),
        "target": np.full(n, -1, np.int32),
    }
    assert set(changes) <= set(rows)
    return {**rows, **{name: np.asarray(v, rows[name].dtype) for name, v in changes.items()}}


@pytest.fixture
def build_store(tmp_path: Path) -> Callable[..., Store]:
    """({tar name: rows, or None while pending}, manifest) -> a store."""

    def build(tars: Mapping[str, Any], m: Manifest | None = None) -> Store:
        m = m or stats_manifest()
        store = Store.create(tmp_path / "labels.zarr", m, list(tars))
        for number, rows in enumerate(tars.values()):
            if rows is not None:
                store.write(number, rows, tar_size=10, tar_sha256="0" * 64)
        return store

    return build


@pytest.fixture(scope="session")
def dense() -> Callable[..., np.ndarray]:
    return dense_logits


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., dict[str, np.ndarray]]:
    return rows_of


@pytest.fixture(scope="session")
def make_manifest() -> Callable[..., Manifest]:
    return stats_manifest
