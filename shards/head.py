"""The teacher's last layer, once a store: with the embeddings it gives all logits, not just K."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from softlabel.shards.errors import StoreError
from softlabel.shards.schema import Manifest

Head = tuple[NDArray[np.float32], NDArray[np.float32]]
"""head_weight [C, D] and head_bias [C], float32: logits = embedding @ weight.T + bias."""

NAMES = ("head_weight", "head_bias")


def head_files(head: Head) -> dict[str, bytes]:
    """The files of both arrays, by name from the store's root; equal heads are equal bytes."""
    store: dict[str, Any] = {}
    for name, values in zip(NAMES, head, strict=True):
        array = zarr.create_array(
            MemoryStore(store),
            name=name,
            shape=values.shape,
            chunks=values.shape,
            dtype="float32",
            fill_value=0,
            filters=None,
            compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            config={"write_empty_chunks": True},
        )
        array[...] = values
    return {name: bytes(data.to_bytes()) for name, data in store.items() if "/" in name}


def read_head(path: Path, manifest: Manifest) -> Head | None:
    """The head of the store at `path`, None if it has none; StoreError if it is damaged."""
    if not (path / NAMES[0]).is_dir():
        return None
    try:
        # zarr reads a chunk that is missing as zeros.
        for name, chunk in zip(NAMES, ("c.0.0", "c.0"), strict=True):
            (path / name / chunk).stat()
        group = zarr.open_group(path, mode="r")
        weight, bias = (np.asarray(group[name][...], np.float32) for name in NAMES)  # type: ignore[index]
    except (ValueError, RuntimeError, KeyError, OSError, TypeError) as error:
        raise StoreError(f"{path}/{NAMES[0]} is damaged ({error})") from None
    wanted = (manifest.num_classes, manifest.embedding_dim or 0)
    if weight.shape != wanted or bias.shape != wanted[:1]:
        raise StoreError(f"{path}/{NAMES[0]}: wanted {wanted}, found {weight.shape}")
    return weight, bias
