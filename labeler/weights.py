"""A model's files on disk: external data refused outside its folder, hashed, read, copied."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from softlabel.labeler.surgery import subgraphs
from softlabel.shards.errors import TeacherError

_READ = 1 << 20


def external_files(model: onnx.ModelProto, path: Path) -> dict[str, Path]:
    """The data files that a model names, by the name it gives them; nothing of them is read.

    Raises:
        TeacherError: a name leads out of the folder of `path`, or its file is missing or short.
    """
    files: dict[str, Path] = {}
    for tensor in filter(uses_external_data, _tensors(model)):
        location, offset, length = _place(tensor, path)
        if location not in files:
            files[location] = _inside(location, path)
        size = files[location].stat().st_size
        if offset + (length or 0) > size:
            raise TeacherError(
                f"{path}: weight {tensor.name!r} ends at byte {offset + (length or 0):,} of "
                f"{location}, which has {size:,}; the file was cut short: fetch it again"
            )
    return files


def fingerprint(path: Path, files: Mapping[str, Path]) -> str:
    """sha256 of the model file; with data files, of the list of all their sha256, names sorted."""
    model = _sha256(path)
    if not files:
        return model
    lines = [f"{model}\n", *(f"{_sha256(files[name])} {name}\n" for name in sorted(files))]
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def values_of(tensor: onnx.TensorProto, path: Path) -> NDArray[Any]:
    """The values of a weight, wherever the model at `path` keeps them."""
    if not uses_external_data(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    location, offset, length = _place(tensor, path)
    with _inside(location, path).open("rb") as file:
        file.seek(offset)
        data = file.read() if length is None else file.read(length)
    whole = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=data)
    return np.asarray(numpy_helper.to_array(whole))


def copy_files(files: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Copy data files into another folder under the names the model gives them.

    A copy that is there with the right size stays.
    """
    copies = {name: folder / name for name in files}
    for name, copy in copies.items():
        size = files[name].stat().st_size
        if copy.is_file() and copy.stat().st_size == size:
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        with files[name].open("rb") as source, _appearing_whole(copy) as target:
            shutil.copyfileobj(source, target, _READ)
    return copies


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all, over whatever was there."""
    with _appearing_whole(path) as target:
        target.write(data)


@contextmanager
def _appearing_whole(path: Path) -> Iterator[BinaryIO]:
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave the name without its bytes
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return digest.hexdigest()


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
        for body in subgraphs(node):
            yield from _graph_tensors(body)


def _place(tensor: onnx.TensorProto, path: Path) -> tuple[str, int, int | None]:
    """Location, offset and length (None: to the end) of a weight's values."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, offset, length = (entries.get(key, "") for key in ("location", "offset", "length"))
    if not location or not all(number.isdecimal() for number in (offset, length) if number):
        raise TeacherError(
            f"{path}: weight {tensor.name!r} says that its values are in another file, but not "
            f"where (location {location!r}, offset {offset!r}, length {length!r}); export it again"
        )
    return location, int(offset or 0), int(length) if length else None


def _inside(location: str, path: Path) -> Path:
    """The file a model at `path` calls `location`, if it is one and within the model's folder."""
    parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    folder = path.parent.resolve()
    if absolute or ".." in parts or "\0" in location:
        raise TeacherError(
            f"{path}: wants its weights from {location!r}, outside its own folder, which a model "
            "may not; put the file beside the model and export it again"
        )
    file = (folder / location).resolve()
    if not file.is_relative_to(folder):
        raise TeacherError(
            f"{path}: its weights {location!r} are a link that leads out of the model's folder; "
            "copy the file itself there"
        )
    if not file.is_file():
        raise TeacherError(f"{path}: its weights {location!r} are missing; put them beside it")
    return file
