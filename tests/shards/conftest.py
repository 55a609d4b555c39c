"""A small store with made-up labels, as several modules here want it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softlabel.shards.schema import Manifest
from softlabel.shards.store import Store


def manifest(**changes: Any) -> Manifest:
    recipe = {"input_size": [3, 8, 8], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    fields: dict[str, Any] = {
        "teacher_sha256": "ab" * 32,
        "teacher_output": "logits",
        "teacher_output_kind": "logits",
        "recipe": recipe,
        "decoder": "pillow",
        "max_image_pixels": 1000,
        "image_ext": ("jpg", "png"),
        "provider": "cpu",
        "views": 2,
        "view_recipe": "crop-flip",
        "view_seed": 0,
        "top_k": 3,
        "temperatures": (1.0, 2.0),
        "num_classes": 10,
        "rows_per_tar": 256,
    }
    return Manifest(**{**fields, **changes})


def labels(store_manifest: Manifest, num_rows: int, *, seed: int = 0) -> dict[str, Any]:
    """Rows that hold every invariant; the last is not ok."""
    rng = np.random.default_rng(seed)
    m = store_manifest
    # Of many classes only some get a logit, so that 65,537 of them cost nothing.
    some = min(m.num_classes, m.top_k + 20)
    z = rng.normal(0, 3, (num_rows, m.views, some))
    order = (np.argsort(-z, axis=-1) + rng.integers(m.num_classes)) % m.num_classes
    top = -np.sort(-z, axis=-1)
    relative = top - top[..., :1]
    rest = relative[..., m.top_k :]
    with np.errstate(divide="ignore"):
        tails = [np.log(np.exp(rest / t).sum(-1)) for t in m.temperatures]
    wide = next(spec.dtype for spec in m.arrays if spec.name == "topk_class")
    rows = {
        "topk_logit": relative[..., : m.top_k].astype(np.float16),
        "topk_class": order[..., : m.top_k].astype(wide),
        "tail_lse": np.stack(tails, -1).astype(np.float32),
        "max_logit": top[..., 0].astype(np.float32),
        "status": np.ones(num_rows, np.uint8),
        "key_hash": rng.integers(0, 2**63, num_rows).astype(np.uint64),
        "image_hash": rng.integers(0, 2**63, num_rows).astype(np.uint64),
        "offset": (512 + 1024 * np.arange(num_rows)).astype(np.uint64),
        "size": np.full(num_rows, 400, np.uint32),
        "target": np.full(num_rows, -1, np.int32),
    }
    if m.embedding_dim:
        rows["embedding"] = rng.normal(size=(num_rows, m.views, m.embedding_dim)).astype("f2")
    if num_rows:
        rows["status"][-1] = 3
        for name in ("topk_logit", "topk_class", "tail_lse", "max_logit", "embedding"):
            if name in rows:
                rows[name][-1] = 0
    return rows


@pytest.fixture
def make_manifest() -> Callable[..., Manifest]:
    return manifest


@pytest.fixture
def make_labels() -> Callable[..., dict[str, Any]]:
    return labels


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Store]:
    """(num_tars, num_rows) -> a store with every tar but the last committed."""

    def make(num_tars: int = 3, num_rows: int = 20, **changes: Any) -> Store:
        tars = [f"data/t{i}.tar" for i in range(num_tars)]
        store = Store.create(tmp_path / "labels.zarr", manifest(**changes), tars)
        for tar in range(num_tars - 1):
            rows = labels(store.manifest, num_rows, seed=tar)
            assert store.write(tar, rows, tar_size=10**6, tar_sha256="cd" * 32)
        return store

    return make
