"""One array of the store as zarr has it: its metadata, and a tar's rows to and from shard bytes.

zarr does the encoding, in memory; the files are ours to write, so that each is flushed to disk
before a commit speaks of it. The metadata that decodes is always the schema's own, never what a
foreign zarr.json claims.
"""

import json
import threading
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import MemoryStore

from softlabel.shards.schema import INNER_ROWS, ArraySpec, Manifest

GROUP_METADATA = b'{\n  "attributes": {},\n  "zarr_format": 3,\n  "node_type": "group"\n}'


def shard_file(spec: ArraySpec, tar: int) -> str:
    """Name of a tar's shard of an array, from the store's root."""
    return f"{spec.name}/c." + ".".join([str(tar), "0", *("0" for _ in spec.axes)])


class ArrayCodec:
    """Encodes and decodes shards of one array; safe to use from several threads."""

    def __init__(self, manifest: Manifest, spec: ArraySpec) -> None:
        self.spec = spec
        self.shape = (manifest.rows_per_tar, *manifest.row_shape(spec))
        self._file = shard_file(spec, 0)
        self._lock = threading.Lock()
        self._bytes: dict[str, Any] = {}
        self._array = self._create(self._bytes, num_tars=1)

    def _create(self, store: dict[str, Any], *, num_tars: int) -> zarr.Array[Any]:
        rows, *rest = self.shape
        return zarr.create_array(
            MemoryStore(store),
            name=self.spec.name,
            shape=(num_tars, rows, *rest),
            shards=(1, rows, *rest),
            chunks=(1, INNER_ROWS, *rest),
            dtype=self.spec.dtype,
            fill_value=0,
            filters=None,
            # Crc32c last: without it no flipped bit is ever found (0 of 200; with it 200).
            compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            config={"write_empty_chunks": True},
        )

    def metadata(self, *, num_tars: int) -> bytes:
        """The array's zarr.json."""
        store: dict[str, Any] = {}
        self._create(store, num_tars=num_tars)
        return bytes(store[f"{self.spec.name}/zarr.json"].to_bytes())

    def metadata_matches(self, data: bytes) -> bool:
        """Whether a zarr.json describes this array, whatever its number of tars.

        Another zarr release may spell the same metadata otherwise, so zarr reads both.
        """
        try:
            found = json.loads(data)
            num_tars = int(found["shape"][0])
            ours = json.loads(self.metadata(num_tars=num_tars))
            return found == ours or (
                ArrayV3Metadata.from_dict(found) == ArrayV3Metadata.from_dict(ours)
            )
        except Exception:  # whatever a foreign file makes zarr say, it is not ours
            return False

    def encode(self, rows: NDArray[Any]) -> bytes:
        """Shard bytes of a tar's rows [n <= R, ...]; the rows after them are zeros."""
        full = np.zeros(self.shape, self.spec.dtype)
        full[: len(rows)] = rows
        with self._lock:
            self._array[...] = full[None]
            return bytes(self._bytes.pop(self._file).to_bytes())

    def decode(self, data: bytes) -> NDArray[Any]:
        """The rows [R, ...] of a shard; ValueError or RuntimeError if its bytes are damaged."""
        with self._lock:
            self._bytes[self._file] = default_buffer_prototype().buffer.from_bytes(data)
            try:
                return np.asarray(self._array[0])
            finally:
                self._bytes.pop(self._file, None)
